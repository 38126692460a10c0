"""What a data stream is: for every client and task, labelled images to train on, to search for, and to search in."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np

SPLITS = ("train", "query", "gallery")
"""The fields of a `Task`."""


@dataclass(frozen=True)
class Images:
    """Labelled person images of one size."""

    pixels: np.ndarray
    """uint8 [n, height, width, 3], RGB."""
    pids: np.ndarray
    """int64 [n], the global person id: the same person has the same id at every client."""
    cameras: np.ndarray
    """int64 [n], -1 where the camera is unknown."""

    def __len__(self) -> int:
        return len(self.pids)

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of which they are made."""
        return self.pixels, self.pids, self.cameras

    @cached_property
    def labels(self) -> np.ndarray:
        """int64 [n, 2]: person and camera."""
        return np.array([self.pids, self.cameras]).T

    @cached_property
    def people(self) -> np.ndarray:
        """Sorted unique person ids, int64."""
        return np.unique(self.pids)

    def select(self, rows: np.ndarray) -> "Images":
        """Copies of the given rows, numbers or bool [n]."""
        return Images(self.pixels[rows], self.pids[rows], self.cameras[rows])


def join(parts: Sequence[Images]) -> Images:
    """Copies of all images, part by part."""
    pixels, pids, cameras = zip(*((part.pixels, part.pids, part.cameras) for part in parts), strict=True)
    return Images(np.concatenate(pixels), np.concatenate(pids), np.concatenate(cameras))


@dataclass(frozen=True)
class Task:
    """One stretch of a client's stream. No image is in two of its splits."""

    train: Images
    query: Images
    gallery: Images


class Stream(ABC):
    """All tasks of all clients. Any rank can open it and ask for any task; the answer never depends on the rank."""

    clients: int
    tasks: int
    on_demand: bool = False
    """Whether its images are made, not read, and every query has a match: a client's are made when it first takes part then,
    and there is nothing to check before."""
    passed_over: Mapping[str, int] = MappingProxyType({})
    """Reason -> how many files, or folders as a whole, that are no part of it."""

    @abstractmethod
    def task(self, client: int, task: int) -> Task:
        """The images of one task (0-based). Raises InputError naming the file where one cannot be read."""

    def labels(self, client: int, task: int) -> dict[str, np.ndarray]:
        """Split -> int64 [n], the person in each image of `task`. Override where that is known without decoding."""
        images = self.task(client, task)
        return {split: getattr(images, split).pids for split in SPLITS}

    def cameras(self, client: int, task: int) -> dict[str, np.ndarray] | None:
        """Split -> int64 [n], the camera of each image of `task`, -1 where unknown; None where only decoding would tell."""
        return None

    def pids(self, client: int, task: int) -> np.ndarray:
        """Sorted unique ids, int64, of the people in the task's train split."""
        return np.unique(self.labels(client, task)["train"])

    def warmup(self) -> Images | None:
        """The server's own labelled images, of people no client ever sees; None where the source has none."""
        return None
