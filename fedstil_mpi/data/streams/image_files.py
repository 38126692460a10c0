"""Streams whose images are files, decoded when their task is asked for."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedstil_mpi.data.files.images import read
from fedstil_mpi.data.streams.base import Images, Stream, Task


@dataclass(frozen=True)
class ImageFile:
    """An image that has not been read yet, and who is in it."""

    path: Path
    person: int
    camera: int
    """-1 where unknown."""


class FileStream(Stream):
    size: tuple[int, int]
    """Height and width of the images."""

    @abstractmethod
    def files(self, client: int, task: int) -> dict[str, list[ImageFile]]:
        """Split -> its files, in the order of the images."""

    def task(self, client: int, task: int) -> Task:
        return Task(**{split: load(files, *self.size) for split, files in self.files(client, task).items()})

    def labels(self, client: int, task: int) -> dict[str, np.ndarray]:
        return {split: _pids(files) for split, files in self.files(client, task).items()}

    def cameras(self, client: int, task: int) -> dict[str, np.ndarray]:
        return {split: _cameras(files) for split, files in self.files(client, task).items()}


def _cameras(files: Sequence[ImageFile]) -> np.ndarray:
    """int64 [n]: the camera of each file."""
    return np.array([file.camera for file in files], np.int64)


def load(files: Sequence[ImageFile], height: int, width: int) -> Images:
    """The files' pixels and labels, in their order. Raises InputError as `images.read` does."""
    pixels = np.empty((len(files), height, width, 3), np.uint8)
    for row, file in zip(pixels, files, strict=True):
        row[:] = read(file.path, height, width)
    return Images(pixels, _pids(files), _cameras(files))


def _pids(files: Sequence[ImageFile]) -> np.ndarray:
    """int64 [n]: the person in each file."""
    return np.array([file.person for file in files], np.int64)
