"""Images that several galleries have in common: joined, the galleries show each of them once."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from fedstil_mpi.data.streams.base import Images, Task


class FirstShown:
    """For each task's gallery a bool [n]: the images that no gallery of a task before it has.

    Two images are the same if their pixels, person and camera are. Duplicates within one gallery stay, so that a single
    gallery is left as it is. A gallery is looked at when it is first come to.
    """

    def __init__(self, tasks: Sequence[Task]):
        self._tasks = tasks
        self._shown: list[np.ndarray] = []
        self._seen: set[bytes] = set()

    def __iter__(self) -> Iterator[np.ndarray]:
        for task in range(len(self._tasks)):
            if task == len(self._shown):
                self._look(self._tasks[task].gallery)
            yield self._shown[task]

    def _look(self, images: Images) -> None:
        keys = [_key(images, row) for row in range(len(images))]
        self._shown.append(np.array([key not in self._seen for key in keys], bool))
        self._seen.update(keys)


def _key(images: Images, row: int) -> bytes:
    digest = hashlib.sha256(images.pixels[row].tobytes())
    digest.update(np.array([images.pids[row], images.cameras[row]]).tobytes())
    return digest.digest()
