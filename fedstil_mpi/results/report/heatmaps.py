"""Heat maps: accuracy by task over time, and which client learns from which."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from fedstil_mpi.evaluation.lifelong import mean_of_known
from fedstil_mpi.results.reading.measures import accuracy_by_task, moments, over_seeds
from fedstil_mpi.results.reading.variants import Variant
from fedstil_mpi.results.report.curves import lines
from fedstil_mpi.results.report.styles import Styles
from fedstil_mpi.results.report.tables import Rows, by

MOST_CLIENTS = 5
"""Clients with a heat map of their own, beside that of the mean."""
MOST_ANNOTATED = 12
"""Rows up to which the cells of a heat map carry their values."""
AT_END = "all variants at the end"
"""The panel that is no heat map."""


def per_task(variants: Sequence[Variant], chosen: Variant) -> Rows:
    """The chosen variant's accuracy matrices, mean over seeds, and every variant's accuracy on each task at the end."""
    matrices, _ = moments(over_seeds(chosen, lambda run: 100 * run.of("served").rank1_matrices))
    panels = {"mean over clients": mean_of_known(np.moveaxis(matrices, 0, -1))}
    panels |= {f"client {client}": matrix for client, matrix in enumerate(matrices[:MOST_CLIENTS])}
    return list(_per_task(variants, chosen, panels))


def _per_task(variants: Sequence[Variant], chosen: Variant, panels: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    for panel, matrix in panels.items():
        for (after, task), value in np.ndenumerate(matrix):
            row = {"panel": panel, "variant": chosen.label, "after_task": after, "task": task}
            yield row | {"rank1_mean": float(value), "rank1_sd": ""}
    for variant in variants:
        values = moments(over_seeds(variant, accuracy_by_task))
        for task, (mean, sd) in enumerate(zip(*(value.tolist() for value in values), strict=True)):
            row = {"panel": AT_END, "variant": variant.label, "after_task": "", "task": task}
            yield row | {"rank1_mean": mean, "rank1_sd": sd}


def draw_per_task(rows: Rows, styles: Styles) -> Figure:
    panels = by("panel", rows)
    end = panels.pop(AT_END)
    figure = Figure(figsize=(max(8, 2.3 * len(panels)), 6.6), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=[1, 1.3], squeeze=False)[:, 0]
    grid = upper.subplots(1, len(panels), squeeze=False)[0]
    known = [row["rank1_mean"] for of_panel in panels.values() for row in of_panel if not np.isnan(row["rank1_mean"])]
    for axes, (panel, of_panel) in zip(grid, panels.items(), strict=True):
        image = _heat_map(axes, of_panel, "after_task", "task", "rank1_mean", ".0f", _span(known))
        axes.set(title=panel, xlabel="task")
    grid[0].set_ylabel("after task")
    upper.suptitle(f"{rows[0]['variant']}: served rank-1 (%) on each task after training each task", fontsize=10)
    upper.colorbar(image, ax=list(grid), label="rank-1 (%)")
    axes = lower.subplots()
    lines(axes, end, styles, "task", "rank1")
    axes.set(xlabel="task (0 is the oldest)", ylabel="served rank-1 at the end (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    lower.legend(loc="outside right upper")
    return figure


def relevance(variants: Sequence[Variant], chosen: Variant) -> Rows:
    """The first, middle and last mixing matrix in the first seed of each variant that has any.

    One seed, not their mean: another seed means other people, and so others to learn from.
    """
    rows: Rows = []
    for run, label in ((variant.runs[0], variant.label) for variant in variants):
        rounds = sorted(run.relevances)
        for round in dict.fromkeys([rounds[0], rounds[len(rounds) // 2], rounds[-1]] if rounds else []):
            matrix = run.relevances[round]
            for receiver, sender in np.argwhere(~np.isnan(matrix)).tolist():
                row = {"variant": label, "seed": run.seed, "round": round, "receiver": receiver, "sender": sender}
                rows.append(row | {"weight": float(matrix[receiver, sender])})
    return rows


def draw_relevance(rows: Rows, styles: Styles) -> Figure:
    variants = by("variant", rows)
    figure = Figure(figsize=(8.5, 3.2 * len(variants)), layout="constrained")
    parts = figure.subfigures(len(variants), 1, squeeze=False)[:, 0]
    span = _span([row["weight"] for row in rows])
    for part, (label, of_label) in zip(parts, variants.items(), strict=True):
        part.suptitle(f"{label}, seed {of_label[0]['seed']}", fontsize=10)
        grid = part.subplots(1, 3)
        rounds = by("round", of_label)
        for axes in grid[len(rounds) :]:
            axes.set_axis_off()
        for axes, (round, of_round) in zip(grid, rounds.items(), strict=False):
            image = _heat_map(axes, of_round, "receiver", "sender", "weight", ".2f", span)
            axes.set(title=f"round {round}", xlabel="taken from client")
        grid[0].set_ylabel("receiving client")
        sums = [sum(row["weight"] for row in line) for m in rounds.values() for line in by("receiver", m).values()]
        part.colorbar(image, ax=list(grid), label="weight" + " (rows sum to 1)" * np.allclose(sums, 1))
    return figure


def _span(values: Sequence[float]) -> tuple[float, float]:
    """The colours' range: that of the values, so that what differs looks different."""
    return (
        (min(values), max(values)) if values and min(values) < max(values) else (0.0, max(values, default=1.0) or 1.0)
    )


def _heat_map(axes: Axes, rows: Rows, y: str, x: str, value: str, form: str, span: tuple[float, float]) -> AxesImage:
    """A matrix of the rows' values, coloured over the span, with the values in the cells if there are not too many."""
    matrix = np.full((1 + max(row[y] for row in rows), 1 + max(row[x] for row in rows)), np.nan)
    for row in rows:
        matrix[row[y], row[x]] = row[value]
    image = axes.imshow(matrix, cmap="cividis", vmin=span[0], vmax=span[1])
    axes.grid(False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    for (i, j), number in np.ndenumerate(matrix) if len(matrix) <= MOST_ANNOTATED else ():
        if not np.isnan(number):
            colour = "white" if number < sum(span) / 2 else "black"
            axes.text(j, i, format(number, form), ha="center", va="center", color=colour, fontsize=7)
    return image
