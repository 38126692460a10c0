"""What a variant looks like, the same in every plot: a colour a family, and the reference stronger than the rest."""

from collections.abc import Sequence
from typing import Any

from fedstil_mpi.results.reading.variants import Variant

Styles = dict[str, dict[str, Any]]
"""Label -> colour, line and marker, as matplotlib takes them."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Told apart by colour-blind eyes too (Okabe and Ito 2008); their yellow is too pale for lines."""
LINES = ("-", "--", ":")
MARKERS = "osD^vPX<>*"
STRONG = {"alpha": 1.0, "linewidth": 2.6, "zorder": 3}
FADED = {"alpha": 0.6, "linewidth": 1.4, "zorder": 2}


def family(label: str) -> str:
    return label.partition(",")[0]


def styles(variants: Sequence[Variant], reference: str) -> Styles:
    """reference: the label of what the others are held against."""
    families: dict[str, list[str]] = {}
    several = len({variant.method for variant in variants}) > 1
    for variant in variants:
        families.setdefault(variant.method if several else family(variant.label), []).append(variant.label)
    return {
        label: {
            "color": COLOURS[index % len(COLOURS)],
            "linestyle": LINES[(index // len(COLOURS) + member) % len(LINES)],
            "marker": MARKERS[(index if len(of_family) == 1 else member) % len(MARKERS)],
            **(STRONG if label == reference else FADED),
        }
        for index, of_family in enumerate(families.values())
        for member, label in enumerate(of_family)
    }
