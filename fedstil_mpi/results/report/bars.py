"""What each variant sends and receives in all, as bars."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from fedstil_mpi.comm.ledger import DOWN, UP
from fedstil_mpi.results.reading.measures import megabytes, over_seeds
from fedstil_mpi.results.reading.variants import Variant
from fedstil_mpi.results.report.styles import Styles
from fedstil_mpi.results.report.tables import Rows, mb

WAYS = {DOWN: "received", UP: "sent"}


def rows(variants: Sequence[Variant], chosen: Variant) -> Rows:
    """MB per client over the whole run, mean over seeds, in the order of the variants."""
    return [
        {"variant": variant.label} | {f"{name}_mb": _mean(variant, way) for way, name in WAYS.items()}
        for variant in variants
    ]


def _mean(variant: Variant, way: str) -> float:
    return float(over_seeds(variant, lambda run: megabytes(run, way)).mean())


def draw(rows: Rows, styles: Styles) -> Figure:
    figure = Figure(figsize=(8, 0.8 + 0.3 * len(rows)), layout="constrained")
    axes = figure.subplots()
    places, left = np.arange(len(rows)), np.zeros(len(rows))
    colours = [styles[row["variant"]]["color"] for row in rows]
    for name, alpha in zip(WAYS.values(), (0.9, 0.45), strict=True):
        widths = np.array([row[f"{name}_mb"] for row in rows])
        axes.barh(places, widths, left=left, color=colours, alpha=alpha, label=name)
        left += widths
    for place, total in zip(places, left.tolist(), strict=True):
        axes.annotate(mb(total), (total, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(places, [row["variant"] for row in rows])
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel(f"MB per client: {' (dark) and '.join(WAYS.values())} (light)")
    return figure
