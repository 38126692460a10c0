"""The plots of report.html, as plotly.js draws them: of the same rows as the pictures, each variant its own traces.

A trace names its variant in `meta`, by which the page switches it on and off.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from fedstil_mpi.results.reading.measures import over_seeds
from fedstil_mpi.results.reading.runs import Run
from fedstil_mpi.results.reading.variants import Variant
from fedstil_mpi.results.report import bars, heatmaps
from fedstil_mpi.results.report.curves import BYTES, ROUND, SECONDS
from fedstil_mpi.results.report.styles import Styles
from fedstil_mpi.results.report.tables import Rows, by

DASHES = {"-": "solid", "--": "dash", ":": "dot"}
SYMBOLS = {
    **{"o": "circle", "s": "square", "D": "diamond", "^": "triangle-up", "v": "triangle-down", "P": "cross", "X": "x"},
    **{"<": "triangle-left", ">": "triangle-right", "*": "star"},
}
"""What matplotlib's names are called here."""
MOST_WEIGHTS = 200_000
"""Numbers of relevance matrices in a page; of more, rounds are left out evenly."""
WHOLE = ("round", "task")
"""Axes of whole numbers."""
MOST_TICKS = 15

Traces = list[dict[str, Any]]


def figures(rows: Mapping[str, Rows], looks: Styles) -> list[dict[str, Any]]:
    """name, title, traces and layout of every plot that has something to show; rows: of `plots.PLOTS`, by name."""
    found = []
    for name, (title, x_title, y_title, traces) in FIGURES.items():
        if rows.get(name):
            found.append(_figure(name, title, x_title, y_title, traces(rows[name], looks)))
    return found


def ledger(variants: Sequence[Variant], looks: Styles) -> dict[str, Any]:
    """What crossed the links in each round, in both directions, mean over seeds and clients."""
    traces = []
    for variant in variants:
        rounds = np.arange(1, 1 + max(run.ledger["round"].max(initial=1) for run in variant.runs))
        by_round = over_seeds(variant, partial(_megabytes, rounds=rounds))
        x, y = rounds.tolist(), by_round.mean(axis=0).tolist()
        traces.append({**_look(variant.label, looks[variant.label]), "x": x, "y": y})
    return _figure("ledger", "What a client receives and sends in each round", "round", "MB per client", traces)


def _megabytes(run: Run, rounds: np.ndarray) -> np.ndarray:
    sums = np.bincount(run.ledger["round"], run.ledger["encoded"], minlength=rounds[-1] + 1)
    return sums[rounds] / 1e6 / run.clients


def _figure(name: str, title: str, x_title: str, y_title: str, traces: Traces) -> dict[str, Any]:
    x_axis: dict[str, Any] = {"title": {"text": x_title}}
    if x_title in WHOLE:
        last = max(max(trace["x"], default=0) for trace in traces)
        x_axis["dtick"] = math.ceil((last + 1) / MOST_TICKS)
    y_axis = {"title": {"text": y_title}, "automargin": True}
    if not y_title:
        y_axis["type"] = "category"  # labels, be they written like numbers
    layout = {"xaxis": x_axis, "yaxis": y_axis}
    return {"name": name, "title": title, "traces": traces, "layout": layout}


def _curves(x: str, y: str, spread: str = "sd") -> Callable[[Rows, Styles], Traces]:
    """A line a variant, with its spread as bars."""

    def traces(rows: Rows, looks: Styles) -> Traces:
        return [
            {
                **_look(label, looks[label]),
                "x": known(row[x] for row in of_label),
                "y": known(row[f"{y}_mean"] for row in of_label),
                "error_y": {
                    "array": known(row[f"{y}_{spread}"] for row in of_label),
                    **{"thickness": 1, "width": 3, "color": looks[label]["color"]},
                },
            }
            for label, of_label in by("variant", rows).items()
        ]

    return traces


def _at_end(rows: Rows, looks: Styles) -> Traces:
    return _curves("task", "rank1")([row for row in rows if row["panel"] == heatmaps.AT_END], looks)


def _bars(rows: Rows, looks: Styles) -> Traces:
    return [
        {
            **{"type": "bar", "orientation": "h", "meta": row["variant"], "name": f"{row['variant']}, {way}"},
            **{"x": [row[f"{way}_mb"]], "y": [row["variant"]], "opacity": opacity},
            "marker": {"color": looks[row["variant"]]["color"]},
        }
        for row in reversed(rows)
        for way, opacity in zip(bars.WAYS.values(), (1.0, 0.5), strict=True)
    ]


def _look(label: str, look: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{"type": "scatter", "mode": "lines+markers", "meta": label, "name": label, "opacity": look["alpha"]},
        "line": {"color": look["color"], "dash": DASHES[look["linestyle"]], "width": 1.4 * look["linewidth"]},
        "marker": {"symbol": SYMBOLS[look["marker"]], "size": 8},
    }


RANK1 = "served rank-1 (%)"
FIGURES: dict[str, tuple[str, str, str, Callable[[Rows, Styles], Traces]]] = {
    "accuracy": ("Accuracy over rounds, mean over the tasks seen so far", "round", RANK1, _curves(ROUND, "rank1")),
    "accuracy_bytes": ("Accuracy over bytes", "MB per client so far", RANK1, _curves(BYTES, "rank1")),
    "accuracy_seconds": ("Accuracy over seconds on 4G links", "seconds so far", RANK1, _curves(SECONDS, "rank1")),
    "tradeoff": (
        "Accuracy against all bytes, with 95 % confidence intervals", "MB per client", RANK1,
        _curves(BYTES, "rank1", "half_width"),
    ),
    "bytes": ("What a client receives, and sends (pale), in the whole run", "MB per client", "", _bars),
    "forgetting": ("Forgetting, had the run ended at that round", "round", "points of rank-1", _curves(ROUND, "forgetting")),
    "per_task": ("Accuracy by task at the end (0 is the oldest)", "task", RANK1, _at_end),
}  # fmt: skip


def relevances(variants: Sequence[Variant]) -> dict[str, dict[str, Any]]:
    """Label -> the rounds and mixing matrices of the first seed, of the variants that have any."""
    found = {}
    for variant in variants:
        matrices = variant.runs[0].relevances
        if matrices:
            every = math.ceil(sum(matrix.size for matrix in matrices.values()) / MOST_WEIGHTS)
            rounds = sorted(matrices)[::-every][::-1]
            weights = [[known(row) for row in np.round(matrices[round].astype(float), 4)] for round in rounds]
            found[variant.label] = {"seed": variant.runs[0].seed, "rounds": rounds, "matrices": weights}
    return found


def known(values: Iterable[float]) -> list[float | None]:
    """JSON knows no nan."""
    return [None if math.isnan(value) else value for value in values]
