"""What a reader finds: one image of one person by one camera."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fedstil_mpi.data.files.listing import entries


@dataclass(frozen=True)
class ImageRecord:
    """One image of a set, not read yet."""

    path: Path
    """The file."""
    source: str
    """Its path below the set's root, with `/` and without `..`; unique in the set."""
    person: str
    """Key within the set: the same key is the same person."""
    camera: str
    """Key within the set."""
    time: int | None
    """Orders the images of one camera, 0 or more; None where the file names do not say."""


def moment(sequence: int, frame: int) -> int:
    """The time of a frame (of at most nine digits) of a camera's sequence: all of a sequence before the next one."""
    return sequence * 10**9 + frame


def files(root: Path, folder: str, name: re.Pattern[str], layout: str) -> Iterator[tuple[str, re.Match[str]]]:
    """(source, match) of the files in root/folder whose whole name matches, sorted; all else there is ignored.

    Raises InputError as `listing.entries` does, saying that `layout` was expected.
    """
    for entry in entries(root / folder, root, layout):
        if (match := name.fullmatch(entry.name)) and entry.is_file():
            yield str(PurePosixPath(folder, entry.name)), match


def folders(root: Path, folder: str, name: re.Pattern[str], layout: str) -> Iterator[tuple[str, re.Match[str]]]:
    """(source, match) of the folders, as `files` does for files."""
    for entry in entries(root / folder, root, layout):
        if (match := name.fullmatch(entry.name)) and entry.is_dir():
            yield str(PurePosixPath(folder, entry.name)), match
