"""Accuracy against bytes at the end of a run: a point a variant, and a line through the variants of one family.

A family is what stands before the first comma of a label: "FedAvg" and "FedAvg, int4" are of one.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from fedstil_mpi.results.reading.measures import at_end, half_width, megabytes, over_seeds
from fedstil_mpi.results.reading.variants import Variant
from fedstil_mpi.results.report.curves import BYTES, logarithmic
from fedstil_mpi.results.report.styles import Styles, family
from fedstil_mpi.results.report.tables import Rows


def rows(variants: Sequence[Variant], chosen: Variant) -> Rows:
    """One row a variant of which anything travels, which a logarithmic axis can show; nothing where there is only one."""
    found: Rows = []
    for variant in variants:
        rank1 = over_seeds(variant, lambda run: at_end(run, "served", "rank1"))
        row = {"variant": variant.label, BYTES: float(over_seeds(variant, megabytes).mean())}
        row |= {"rank1_mean": float(rank1.mean()), "rank1_half_width": half_width(rank1), "n": len(rank1)}
        found.append(row)
    found = [row for row in found if row[BYTES] > 0]
    return found if len(found) > 1 else []


def draw(rows: Rows, styles: Styles) -> Figure:
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    families = {family(row["variant"]): styles[row["variant"]]["color"] for row in rows}
    for name, colour in families.items():
        members = sorted((row for row in rows if family(row["variant"]) == name), key=lambda row: row[BYTES])
        points = np.array([(row[BYTES], row["rank1_mean"]) for row in members])
        axes.plot(*points.T, color=colour, alpha=0.35, linewidth=1.2)
    for row in rows:
        look = styles[row["variant"]] | {"linestyle": "none"}
        error = row["rank1_half_width"]
        axes.errorbar(row[BYTES], row["rank1_mean"], error, **look, label=row["variant"], capsize=3, elinewidth=1)
    logarithmic(axes)
    axes.set(xlabel="sent and received in all (MB per client)", ylabel="served rank-1 at the end (%)")
    figure.legend(loc="outside right upper")
    return figure
