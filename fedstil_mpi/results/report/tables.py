"""The main table: one row a variant, each number a mean over seeds; as Markdown, CSV and for the terminal."""

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table as Printed
from rich.text import Text

from fedstil_mpi.comm.ledger import DOWN, UP
from fedstil_mpi.evaluation.scopes import words
from fedstil_mpi.results.reading.measures import Spread, at_end, megabytes, over_seeds, seconds, spread
from fedstil_mpi.results.reading.runs import Run
from fedstil_mpi.results.reading.variants import Variant, scopes
from fedstil_mpi.util.files import atomic
from fedstil_mpi.util.tables import markdown

Rows = list[dict[str, Any]]
"""Lines of a CSV file, all of the same keys."""
PERCENT, MEGABYTES, SECONDS = "%", "MB", "s"


def by(key: str, rows: Rows) -> dict[Any, Rows]:
    """Value of the key -> its rows; both in the order in which they come."""
    parts: dict[Any, Rows] = {}
    for row in rows:
        parts.setdefault(row[key], []).append(row)
    return parts


@dataclass(frozen=True)
class Column:
    name: str
    """In a CSV file, before _mean and _sd."""
    title: str
    unit: str
    best: Callable[[Sequence[float]], float] | None
    """min or max; None: which is best does not follow from the number."""
    measure: Callable[[Run], float]

    def mean(self, value: Spread) -> str:
        if np.isnan(value.mean):
            return "–"
        return mb(value.mean) if self.unit == MEGABYTES else f"{value.mean:z.1f}"

    def text(self, value: Spread) -> str:
        """What differs from seed to seed, accuracies and times, with its spread."""
        return self.mean(value) + (f" ± {value.sd:.1f}" if self.unit != MEGABYTES and not np.isnan(value.sd) else "")


@dataclass(frozen=True)
class Table:
    """Means over seeds."""

    columns: list[Column]
    rows: dict[str, list[Spread]]
    """Label -> a value for each column."""
    seeds: dict[str, list[int]]
    """Label -> the seeds behind the row."""


def main_table(variants: Sequence[Variant]) -> Table:
    """What is served in the end and what it cost."""
    columns = [
        *_accuracy("served"),
        Column("local_rank1", "local rank-1", PERCENT, max, lambda run: at_end(run, "local", "rank1")),
        Column("s2c_mb", "S2C", MEGABYTES, min, lambda run: megabytes(run, DOWN)),
        Column("c2s_mb", "C2S", MEGABYTES, min, lambda run: megabytes(run, UP)),
        Column("total_mb", "total", MEGABYTES, min, megabytes),
    ]
    if any(not np.array_equal(run.ledger["raw"], run.ledger["encoded"]) for v in variants for run in v.runs):
        columns.append(Column("raw_mb", "raw total", MEGABYTES, min, lambda run: megabytes(run, column="raw")))
    counted = Column("counted", "queries counted", PERCENT, max, lambda run: at_end(run, "served", "counted"))
    if any(counted.measure(run) < 100 for v in variants for run in v.runs):
        columns.append(counted)
    columns.append(Column("seconds", "time", SECONDS, None, seconds))
    return _table(variants, columns)


def scopes_table(variants: Sequence[Variant]) -> Table:
    """What is served in the end, by scope."""

    def rank1(scope: str) -> Callable[[Run], float]:
        return lambda run: at_end(run, "served", "rank1", scope)

    return _table(
        variants, [Column(f"{name}_rank1", words(name), PERCENT, max, rank1(name)) for name in scopes(variants)]
    )


def task_free_table(variants: Sequence[Variant]) -> Table:
    """The newest models, searched on all tasks, of the variants whose tasks have models of their own."""
    local = Column("local_rank1", "local rank-1", PERCENT, max, lambda run: at_end(run, "local_task_free", "rank1"))
    return _table([variant for variant in variants if variant.task_aware], [*_accuracy("served_task_free"), local])


def _accuracy(model: str) -> list[Column]:
    return [
        Column("served_rank1", "served rank-1", PERCENT, max, lambda run: at_end(run, model, "rank1")),
        Column("served_map", "mAP", PERCENT, max, lambda run: at_end(run, model, "map")),
        Column("served_forgetting", "forgetting", PERCENT, min, lambda run: at_end(run, model, "forgetting")),
    ]


def _table(variants: Sequence[Variant], columns: list[Column]) -> Table:
    rows = {v.label: [spread(over_seeds(v, column.measure)) for column in columns] for v in variants}
    return Table(columns, rows, {v.label: v.seeds for v in variants})


# -- as text -----------------------------------------------------------------------------------------------------------


def cells(table: Table, bold: Callable[[str], Any]) -> dict[str, list[Any]]:
    """Label -> its cells as text; `bold` makes what stands for the best of a column."""
    texts: dict[str, list[Any]] = {
        label: [c.text(v) for c, v in zip(table.columns, row, strict=True)] for label, row in table.rows.items()
    }
    for index, column in enumerate(table.columns):
        values = {label: row[index] for label, row in table.rows.items() if not np.isnan(row[index].mean)}
        means = {label: column.mean(value) for label, value in values.items()}
        if column.best is not None and len(set(means.values())) > 1:
            best = column.best([value.mean for value in values.values()])
            winner = column.mean(Spread(best, np.nan, 1))
            for label in (label for label, mean in means.items() if mean == winner):
                texts[label][index] = bold(texts[label][index])
    return texts


def as_markdown(table: Table, starred: Sequence[str] = ()) -> str:
    header = ["variant", "n", *_titles(table)]
    rows = [
        [label + (" \\*" if label in starred else ""), str(len(table.seeds[label])), *row]
        for label, row in cells(table, "**{}**".format).items()
    ]
    return markdown(header, rows)


def printed(table: Table, starred: Sequence[str] = ()) -> Printed:
    """For a terminal."""
    shown = Printed(box=None, padding=(0, 1, 0, 0))
    shown.add_column("variant", overflow="fold")
    shown.add_column("n", justify="right")
    for title in _titles(table):
        shown.add_column(title.replace(" ", "\n"), justify="right", no_wrap=True)
    for label, row in cells(table, lambda text: Text(text, style="bold")).items():
        shown.add_row(label + (" *" if label in starred else ""), str(len(table.seeds[label])), *row)
    return shown


def as_rows(table: Table) -> Rows:
    """For a CSV file: mean and sd of every column, in full precision."""
    return [
        {"variant": label, "n": len(table.seeds[label]), "seeds": " ".join(map(str, table.seeds[label]))}
        | {
            f"{column.name}_{part}": getattr(value, part)
            for column, value in zip(table.columns, row, strict=True)
            for part in ("mean", "sd")
        }
        for label, row in table.rows.items()
    ]


def write_csv(path: Path, rows: Rows) -> None:
    """Numbers in full precision, nan for what is unknown. Raises OSError."""
    with atomic(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def mb(value: float) -> str:
    """Megabytes with one decimal, small ones with three digits, never as a power of ten."""
    if abs(value) >= 10 or value == 0:
        return f"{value:.1f}"
    return f"{value:.{2 - math.floor(math.log10(abs(value)))}f}"


def _titles(table: Table) -> list[str]:
    return [f"{column.title} ({column.unit})" for column in table.columns]
