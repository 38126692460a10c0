"""The plots of a report. Each is drawn from the very rows that its CSV file holds.

Figures are made without pyplot: no display is looked for, and no figure stays open.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.figure import Figure

from fedstil_mpi.results.reading.measures import accuracy_by_round, forgetting_by_round
from fedstil_mpi.results.reading.runs import MOST_MIXED
from fedstil_mpi.results.reading.variants import Variant
from fedstil_mpi.results.report import bars, heatmaps, styles, tradeoff
from fedstil_mpi.results.report.curves import BYTES, ROUND, SECONDS, draw_curves, over_bytes, over_rounds
from fedstil_mpi.results.report.styles import Styles
from fedstil_mpi.results.report.tables import Rows, write_csv
from fedstil_mpi.util.files import atomic

SETTINGS: dict[Any, Any] = {
    "figure.dpi": 150,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "text.parse_math": False,
}


class Plot(NamedTuple):
    caption: str
    rows: Callable[[Sequence[Variant], Variant], Rows]
    """All variants, and the one to look at closely -> what is plotted; nothing: no plot."""
    draw: Callable[[Rows, Styles], Figure]


RANK1 = "served rank-1, mean over seen tasks (%)"
PLOTS = {
    "accuracy": Plot(
        "Served rank-1, mean over the tasks seen so far; line: mean over seeds, band: ± sd",
        over_rounds("rank1", accuracy_by_round),
        draw_curves(ROUND, "rank1", "round", RANK1),
    ),
    "accuracy_bytes": Plot(
        "The same against what had crossed the links by then, both directions, first contact included; hollow: the end",
        over_bytes("rank1", accuracy_by_round),
        draw_curves(BYTES, "rank1", "sent and received so far (MB per client)", RANK1),
    ),
    "accuracy_seconds": Plot(
        "The same against the seconds that these bytes take on 4G links (20 Mbit/s down, 10 up, 50 ms), without training",
        over_bytes("rank1", accuracy_by_round),
        draw_curves(SECONDS, "rank1", "seconds of transfers so far", RANK1),
    ),
    "tradeoff": Plot(
        "Served rank-1 at the end against all bytes, first contact included; bars: 95 % confidence interval of the mean",
        tradeoff.rows,
        tradeoff.draw,
    ),
    "bytes": Plot(
        "What a client receives and sends in the whole run, first contact included, mean over seeds",
        bars.rows,
        bars.draw,
    ),
    "forgetting": Plot(
        "Forgetting, had the run ended at that round",
        over_rounds("forgetting", forgetting_by_round),
        draw_curves(ROUND, "forgetting", "round", "forgetting of served models (points of rank-1)"),
    ),
    "per_task": Plot(
        "Accuracy by task: one variant over time, mean over seeds, and all variants at the end",
        heatmaps.per_task,
        heatmaps.draw_per_task,
    ),
    "relevance": Plot(
        f"How much each client (of the first {MOST_MIXED}) takes from each: first, middle and last round, one seed",
        heatmaps.relevance,
        heatmaps.draw_relevance,
    ),
}


def write_all(variants: Sequence[Variant], chosen: Variant, folder: Path) -> dict[str, Rows]:
    """Write every plot that has something to show, and its CSV file; returns its rows by name. Raises OSError."""
    looks = styles.styles(variants, chosen.label)
    written = {}
    for name, plot in PLOTS.items():
        picture, numbers = folder / f"{name}.png", folder / f"{name}.csv"
        rows = plot.rows(variants, chosen)
        if rows:
            with matplotlib.rc_context(SETTINGS), atomic(picture) as partial:
                plot.draw(rows, looks).savefig(partial, format="png")
            write_csv(numbers, rows)
            written[name] = rows
        else:
            for file in (picture, numbers):  # an earlier report's
                file.unlink(missing_ok=True)
    return written
