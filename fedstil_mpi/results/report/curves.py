"""Curves over rounds and over bytes: one line a variant, a band of ± sd over its seeds."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

from fedstil_mpi.results.reading.links import LINKS, Assumptions, seconds_by_evaluation
from fedstil_mpi.results.reading.measures import megabytes_by_round, moments, over_seeds
from fedstil_mpi.results.reading.runs import Run
from fedstil_mpi.results.reading.variants import Variant
from fedstil_mpi.results.report.styles import STRONG, Styles
from fedstil_mpi.results.report.tables import Rows

ROUND, BYTES, SECONDS = "round", "mb_per_client", "seconds_on_4g"
LOG_SPAN = 10
"""Largest over smallest amount of bytes or seconds from which their axis is logarithmic."""
ON_4G = Assumptions(LINKS["4g"])
WIDER = 4.0
"""Points by which a line is wider than an equal one upon it."""
FEW = 4
"""Variants up to which all have a band; of more the reference alone has one."""


def over_rounds(name: str, measure: Callable[[Run], np.ndarray]) -> Callable[[Sequence[Variant], Variant], Rows]:
    """What gives the rows of a measure: after each evaluation its mean and sd, and what had crossed by then, in bytes and in
    seconds on the link 4g.

    measure: run -> float64 [evaluations]. Evaluations at which no variant has a value give no rows.
    """

    def rows(variants: Sequence[Variant], chosen: Variant) -> Rows:
        found: Rows = []
        for variant in variants:
            costs = (moments(over_seeds(variant, cost))[0] for cost in (megabytes_by_round, _seconds))
            values = *moments(over_seeds(variant, measure)), *costs
            rounds = variant.runs[0].of("served").rounds
            for round, mean, sd, sent, seconds in zip(rounds.tolist(), *(v.tolist() for v in values), strict=True):
                row = {"variant": variant.label, ROUND: round, BYTES: sent, SECONDS: seconds}
                row |= {f"{name}_mean": mean, f"{name}_sd": sd}
                found.append(row | {"n": len(variant.runs)})
        known = {row[ROUND] for row in found if not np.isnan(row[f"{name}_mean"])}
        return [row for row in found if row[ROUND] in known]

    return rows


def _seconds(run: Run) -> np.ndarray:
    return seconds_by_evaluation(run, ON_4G)


def over_bytes(name: str, measure: Callable[[Run], np.ndarray]) -> Callable[[Sequence[Variant], Variant], Rows]:
    """The same; of a variant whose bytes never change, only the end."""

    def rows(variants: Sequence[Variant], chosen: Variant) -> Rows:
        found = over_rounds(name, measure)(variants, chosen)
        ends = {row["variant"]: row for row in found}
        sent: dict[str, set[float]] = {}
        for row in found:
            sent.setdefault(row["variant"], set()).add(row[BYTES])
        return [row for row in found if len(sent[row["variant"]]) > 1 or row is ends[row["variant"]]]

    return rows


def draw_curves(x: str, y: str, x_title: str, y_title: str) -> Callable[[Rows, Styles], Figure]:
    """What draws such rows against their key `x`."""

    def draw(rows: Rows, styles: Styles) -> Figure:
        figure = Figure(figsize=(8, 4.2), layout="constrained")
        axes = figure.subplots()
        lines(axes, rows, styles, x, y, emphasise_end=x != ROUND)
        axes.set(xlabel=x_title, ylabel=y_title)
        xs = [row[x] for row in rows]
        if x == ROUND:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        elif 0 < LOG_SPAN * min(xs) < max(xs):
            logarithmic(axes)
        figure.legend(loc="outside right upper")
        return figure

    return draw


def logarithmic(axes: Axes) -> None:
    """The x axis, with numbers as they are written."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())


def lines(axes: Axes, rows: Rows, styles: Styles, x: str, y: str, emphasise_end: bool = False) -> None:
    """A line and a band for each variant; emphasise_end: a larger, hollow marker with an error bar.

    Of lines that are the same each lies upon a wider one, so that all are seen.
    """
    curves: dict[str, tuple[np.ndarray, ...]] = {}
    for label in dict.fromkeys(row["variant"] for row in rows):
        of_label = [row for row in rows if row["variant"] == label]
        curves[label] = tuple(np.array([row[key] for row in of_label]) for key in (x, f"{y}_mean", f"{y}_sd"))
    alike = Counter(_bits(curve) for curve in curves.values())
    for label, (xs, mean, sd) in curves.items():
        alike[_bits(curves[label])] -= 1
        look = styles[label] | {"linewidth": styles[label]["linewidth"] + WIDER * alike[_bits(curves[label])]}
        axes.plot(xs, mean, label=label, **look)
        if len(curves) <= FEW or look["alpha"] == STRONG["alpha"]:
            axes.fill_between(xs, mean - sd, mean + sd, color=look["color"], alpha=0.15, linewidth=0)
        if emphasise_end:
            axes.errorbar(xs[-1:], mean[-1:], sd[-1:], **look, ms=8, mfc="white", capsize=4, elinewidth=1)


def _bits(curve: Sequence[np.ndarray]) -> tuple[bytes, ...]:
    """What says whether two lines are the same."""
    return tuple(values.tobytes() for values in curve[:2])
