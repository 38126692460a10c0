"""Any set as a CSV file: a row an image, with the columns path, person, camera and, if wanted, time.

    path,person,camera,time
    images/door/17.jpg,anna,door,20260131

The root is the CSV file, in UTF-8. Paths are relative to its folder, with `/`, and may not leave it. Person and camera
are any text; the same text is the same person or camera. Time is a whole number that orders a camera's images, of any
unit; it may be empty where it is not known.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fedstil_mpi.data.files.listing import Tree
from fedstil_mpi.data.files.table import rows
from fedstil_mpi.data.readers.records import ImageRecord
from fedstil_mpi.util.errors import InputError

NEEDED = ("path", "person", "camera")
KNOWN = (*NEEDED, "time")
LAYOUT = "a CSV file with the columns path, person, camera and, if wanted, time"

TIME = re.compile(r"[0-9]{1,18}")  # so that it fits an int64


def read(tree: Tree) -> Iterator[ImageRecord]:
    within = Tree(tree.root.parent, tree.follow_links, tree.passed_over)
    places: dict[str, str] = {}
    for place, row in rows(tree.root, NEEDED, KNOWN):
        record = _record(row, within.root, place)
        if record.source in places:
            raise InputError(
                f"{place}: {record.source} stands in {places[record.source].rpartition(', ')[2]} too; expected every "
                "image once; remove one of the lines"
            )
        places[record.source] = place
        if problem := within.leads(record.path):
            tree.passed_over[problem] += 1
        else:
            yield record


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
