"""What is in the folders of a data set: in one order everywhere, and never from outside of the set's root."""

import os
from collections.abc import Iterable
from pathlib import Path

from fedstil_mpi.util.errors import InputError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png")
"""The image files that are read, in lower or upper case."""


def entries(folder: Path, root: Path, content: str) -> list[os.DirEntry[str]]:
    """What is in the folder, hidden files left out, sorted by name.

    Raises InputError where the folder cannot be listed, saying that `content` was expected, and where it or something in
    it leads out of the root.
    """
    try:
        with os.scandir(folder) as listing:
            found = sorted((entry for entry in listing if not entry.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be listed ({error.strerror}): expected {content}; create it or correct the path"
        ) from error
    refuse_links_out([str(folder), *(entry.path for entry in found if entry.is_symlink())], root)
    return found


def refuse_links_out(paths: Iterable[str], root: Path) -> None:
    """Raise InputError for the first of the paths that symbolic links lead out of the root, nowhere or in circles."""
    inside = os.path.realpath(root)
    for path in paths:
        # realpath and exists take links in circles, where Path.resolve and is_file may raise.
        target = os.path.realpath(path)
        if not (os.path.exists(path) and Path(target).is_relative_to(inside)):
            raise InputError(
                f"{path} links to {target}: expected links that stay inside {root}; copy the target there or remove "
                "the link"
            )
