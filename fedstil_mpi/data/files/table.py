"""CSV files with named columns that users write."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from fedstil_mpi.util.errors import InputError, did_you_mean
from fedstil_mpi.util.files import regular_file

LARGEST = 4_000_000_000
"""Bytes."""


def rows(table: Path, needed: Sequence[str], known: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """(place, for messages; text by column) of each row of a CSV file in UTF-8. Columns other than `known` are refused.

    Raises InputError, naming the line, for a file that is not so.
    """
    layout = f"a CSV file with the columns {', '.join(known[:-1])} and {known[-1]}"
    try:
        regular_file(table, "CSV file", LARGEST)
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            columns = [column.strip() for column in reader.fieldnames or ()]
            _check_columns(table, columns, needed, known, layout)
            reader.fieldnames = columns
            for row in reader:
                place = f"{table}, line {reader.line_num}"
                if None in row or None in row.values():
                    raise InputError(
                        f"{place}: expected {len(columns)} fields ({', '.join(columns)}); put texts with a comma in double quotes"
                    )
                yield place, {column: text.strip() for column, text in row.items()}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{table} cannot be read ({reason}): expected {layout}; correct it or its path") from error


def _check_columns(
    table: Path, columns: Sequence[str], needed: Sequence[str], known: Sequence[str], layout: str
) -> None:
    for column in columns:
        if column not in known or columns.count(column) > 1:
            remedy = "remove the column" if len(columns) > 1 else "put commas between columns"
            raise InputError(
                f"{table} has {'two columns' if column in known else 'a column'} {column!r}; "
                f"{did_you_mean(column.lower(), known) if column not in known else ''}expected {layout}; {remedy}"
            )
    if missing := [column for column in needed if column not in columns]:
        raise InputError(f"{table} has no column {missing[0]}: expected {layout} in its first line; add it")
