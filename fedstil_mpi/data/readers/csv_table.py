"""Any set as a CSV file: a row an image, with the columns path, person, camera and, if wanted, time.

    path,person,camera,time
    images/door/17.jpg,anna,door,20260131

The root is the CSV file, in UTF-8. Paths are relative to its folder, with `/`, and may not leave it. Person and camera
are any text; the same text is the same person or camera. Time is a whole number that orders a camera's images, of any
unit; it may be empty where it is not known.
"""

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fedstil_mpi.data.files.listing import refuse_links_out
from fedstil_mpi.data.readers.records import ImageRecord
from fedstil_mpi.util.errors import InputError, did_you_mean

LAYOUT = "a CSV file with the columns path, person, camera and, if wanted, time"
NEEDED = ("path", "person", "camera")
KNOWN = (*NEEDED, "time")

TIME = re.compile(r"[0-9]{1,18}")  # so that it fits an int64


def read(root: Path) -> Iterator[ImageRecord]:
    lines: dict[str, int] = {}
    for line, row in _rows(root):
        record = _record(row, root.parent, f"{root}, line {line}")
        if record.source in lines:
            raise InputError(
                f"{root}, line {line}: {record.source} stands in line {lines[record.source]} too; expected every "
                "image once; remove one of the lines"
            )
        lines[record.source] = line
        yield record
    refuse_links_out((str(root.parent / source) for source in lines), root.parent)


def _rows(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(number of the line, text by column)."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            columns = [column.strip() for column in reader.fieldnames or ()]
            _check_columns(table, columns)
            reader.fieldnames = columns
            for row in reader:
                if None in row or None in row.values():
                    raise InputError(
                        f"{table}, line {reader.line_num}: expected {len(columns)} fields ({', '.join(columns)}); put "
                        "texts with a comma in double quotes"
                    )
                yield reader.line_num, {column: text.strip() for column, text in row.items()}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{table} cannot be read ({reason}): expected {LAYOUT}; correct it or its path") from error


def _check_columns(table: Path, columns: list[str]) -> None:
    for column in columns:
        if column not in KNOWN or columns.count(column) > 1:
            raise InputError(
                f"{table} has {'two columns' if column in KNOWN else 'a column'} {column!r}; "
                f"{did_you_mean(column.lower(), KNOWN) if column not in KNOWN else ''}expected {LAYOUT}; remove it"
            )
    if missing := [column for column in NEEDED if column not in columns]:
        raise InputError(f"{table} has no column {missing[0]}: expected {LAYOUT} in its first line; add it")


def _record(row: dict[str, str], folder: Path, place: str) -> ImageRecord:
    """Raises InputError, naming the place, for a row that does not describe an image below the folder."""
    relative, time = PurePosixPath(row["path"]), row.get("time", "")
    if relative.is_absolute() or ".." in relative.parts:
        raise InputError(
            f"{place}: the path {row['path']!r} leaves {folder}; expected one relative to that folder, without '..'; "
            "move the CSV file above its images"
        )
    if not os.path.isfile(folder / relative):
        raise InputError(f"{place}: {folder / relative} is no file; expected an image; correct the path")
    for column in ("person", "camera"):
        if not row[column]:
            raise InputError(f"{place}: the {column} is empty; expected a name or number; fill it in")
    if time and not TIME.fullmatch(time):
        raise InputError(f"{place}: the time is {time!r}; expected a whole number of at most 18 digits, or nothing")
    return ImageRecord(folder / relative, str(relative), row["person"], row["camera"], int(time) if time else None)
