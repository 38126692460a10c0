"""What a reader finds: one image of one person by one camera."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fedstil_mpi.data.files.listing import OTHER_NAME, Tree, looks_like_image


@dataclass(frozen=True)
class ImageRecord:
    """One image of a set, not read yet."""

    path: Path
    """The file; of an image within a MATLAB file, see files/matlab.py, that file's path and the image's name in it."""
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


def images(
    tree: Tree, folders: Sequence[str], name: re.Pattern[str], layout: str
) -> Iterator[tuple[str, str, re.Match[str]]]:
    """(folder, source, match) of the files whose path below one of the folders, with `/`, matches as a whole, sorted.

    Image files of other names, image files beside the folders, and other folders there, are passed over and counted.
    Raises InputError as `Tree.entries` does, saying that `layout` was expected.
    """
    for folder in folders:
        for path, _ in tree.files(folder, name.pattern.count("/"), layout):
            if match := name.fullmatch(path):
                yield folder, str(PurePosixPath(folder, path)), match
            elif looks_like_image(path):
                tree.passed_over[OTHER_NAME] += 1
    if "." not in folders:
        own = {PurePosixPath(folder).parts[0] for folder in folders}
        for entry in tree.entries(tree.root, layout):
            if entry.name not in own:
                tree.count_beside(entry)
