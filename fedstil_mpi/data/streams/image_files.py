"""Images that are still files, with their labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedstil_mpi.data.files.images import read
from fedstil_mpi.data.streams.base import Images


@dataclass(frozen=True)
class ImageFile:
    """An image that has not been read yet, and who is in it."""

    path: Path
    person: int
    camera: int
    """-1 where unknown."""


def load(files: Sequence[ImageFile], height: int, width: int) -> Images:
    """The files' pixels and labels, in their order. Raises InputError as `images.read` does."""
    pixels = np.empty((len(files), height, width, 3), np.uint8)
    for row, file in zip(pixels, files, strict=True):
        row[:] = read(file.path, height, width)
    return Images(pixels, pids_of(files), np.array([file.camera for file in files], np.int64))


def pids_of(files: Sequence[ImageFile]) -> np.ndarray:
    """int64 [n]: the person in each file."""
    return np.array([file.person for file in files], np.int64)
