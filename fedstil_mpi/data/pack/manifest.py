"""What is known of every image of a stream, and which images make up each task: a pack without its pixels."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedstil_mpi.data.streams.base import SPLITS

ROLES = (*SPLITS, "warmup")
"""What an image is for, by number. Warm-up images belong to the server: their client and task are -1."""

COLUMNS = ("client", "task", "role", "person", "camera", "source", "file_sha256", "pixels_sha256")
"""The columns of the manifest as CSV."""


@dataclass(frozen=True)
class Selection:
    """The images of one split, for every client and task. An image may be in the galleries of several tasks."""

    rows: np.ndarray
    """int64 [m], rows of the manifest: those of client 0 and task 0 first, then those of client 0 and task 1, ..."""
    offsets: np.ndarray
    """int64 [clients * tasks + 1]: number `client * tasks + task` begins at this place of `rows`."""

    @classmethod
    def sort(cls, number: np.ndarray, row: np.ndarray, numbers: int) -> "Selection":
        """The selection of pairs of a task's number, 0 to `numbers` - 1, and a row, both int64 [m], in any order."""
        order = np.lexsort((row, number))
        return cls(row[order], np.searchsorted(number[order], np.arange(numbers + 1)))

    def of(self, number: int) -> np.ndarray:
        """The rows of task number `client * tasks + task`."""
        return self.rows[self.offsets[number] : self.offsets[number + 1]]

    def rows_of(self, numbers: Sequence[int]) -> np.ndarray:
        """The different rows of several tasks, ascending."""
        return np.unique(np.concatenate([self.of(number) for number in numbers]))


@dataclass(frozen=True)
class Manifest:
    """One row an image, in the order in which the pixels are stored."""

    client: np.ndarray
    """int64 [n]: the client whose camera took it."""
    task: np.ndarray
    """int64 [n]: the task in which that client sees the person."""
    role: np.ndarray
    """uint8 [n], an index of ROLES."""
    person: np.ndarray
    """int64 [n], the person's number in the stream."""
    camera: np.ndarray
    """int64 [n], the camera's number in the stream; -1 where unknown."""
    source: tuple[str, ...]
    """[n]: where the image comes from, as set/path below the set's root."""
    file_sha256: np.ndarray
    """uint8 [n, 32], of the bytes of the original file; all zero where there was none."""
    pixels_sha256: np.ndarray
    """uint8 [n, 32], of the pixels as stored, height x width x RGB."""

    def __len__(self) -> int:
        return len(self.person)

    def splits(self, clients: int, tasks: int) -> dict[str, Selection]:
        """Split -> its images, in a stream whose tasks share none."""
        number, splits = self.client * tasks + self.task, {}
        for split in SPLITS:
            rows = np.flatnonzero(self.role == ROLES.index(split))
            splits[split] = Selection.sort(number[rows], rows, clients * tasks)
        return splits

    def write_csv(self, path: Path) -> None:
        """A row an image, hashes in hexadecimal, UTF-8, into which bytes of a name that are not are escaped. The same manifest
        gives the same bytes."""
        with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for row in range(len(self)):
                numbers = self.client[row], self.task[row], ROLES[self.role[row]], self.person[row], self.camera[row]
                hashes = self.file_sha256[row].tobytes().hex(), self.pixels_sha256[row].tobytes().hex()
                writer.writerow((*numbers, self.source[row], *hashes))


@dataclass(frozen=True)
class Plan:
    """A stream of images without their pixels."""

    clients: int
    tasks: int
    manifest: Manifest
    splits: Mapping[str, Selection]
    """Split, as in SPLITS -> its images."""
