"""How long the bytes of each variant take over edge links, and until it is accurate: the table of `replay` in a report."""

import math
from collections.abc import Sequence

from fedstil_mpi.results.reading.links import LINKS, Assumptions, accuracy_of_stream, totals
from fedstil_mpi.results.reading.measures import over_seeds
from fedstil_mpi.results.reading.variants import Variant
from fedstil_mpi.util.tables import markdown

SHARES = (0.5, 0.9)
"""Of the reference's best accuracy: when these are reached is told."""


def section(variants: Sequence[Variant], reference: Variant) -> str:
    best = over_seeds(reference, lambda run: accuracy_of_stream(run).max()).mean()
    goals = [math.floor(share * best) for share in SHARES]
    rows = []
    for variant in variants:
        row = [variant.label]
        for link in LINKS.values():
            row += [seconds(value) for value in totals(variant, Assumptions(link), goals)[1:]]
        rows.append(row)
    header = [f"{name}: {what}" for name in LINKS for what in ("all", *(f"to {goal} %" for goal in goals))]
    rates = "; ".join(f"{name}: {link}" for name, link in LINKS.items())
    shares = " and ".join(f"{100 * share:.0f} %" for share in SHARES)
    return (
        "Seconds of transfers, mean over seeds: of the whole run, and until served rank-1 of the whole stream, in which "
        f"tasks not met yet count 0, first reaches {shares} of {reference.label}'s best. Without training; –: not by "
        f"every seed. {rates}; the server's link 1 Gbit/s. Others: `python -m fedstil_mpi.replay`.\n\n"
        + markdown(["variant", *header], rows)
    )


def seconds(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}" if value < 100 else f"{value:.0f}"
