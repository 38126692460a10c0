"""All clients' training images in one: what exchange is worth if images could travel."""

import numpy as np

from fedstil_mpi.data.streams.base import Images, Stream, Task


class PooledStream(Stream):
    """Every client trains on what all clients see in that task, and is tested on its own queries and galleries."""

    def __init__(self, source: Stream):
        self.source = source
        self.clients = source.clients
        self.tasks = source.tasks
        self._persons: dict[int, np.ndarray] = {}

    def task(self, client: int, task: int) -> Task:
        own = self.source.task(client, task)
        trains = [own.train if c == client else self.source.task(c, task).train for c in range(self.clients)]
        pooled = Images(
            np.concatenate([t.pixels for t in trains]),
            np.concatenate([t.pids for t in trains]),
            np.concatenate([t.cameras for t in trains]),
        )
        return Task(pooled, own.query, own.gallery)

    def people(self, client: int, task: int) -> np.ndarray:
        return np.unique(self._trained(task))

    def labels(self, client: int, task: int) -> dict[str, np.ndarray]:
        return self.source.labels(client, task) | {"train": self._trained(task)}

    def _trained(self, task: int) -> np.ndarray:
        """Who is in each training image of a task, the same for every client."""
        if task not in self._persons:
            trains = [self.source.labels(client, task)["train"] for client in range(self.clients)]
            self._persons[task] = np.concatenate(trains)
        return self._persons[task]

    def warmup(self) -> Images | None:
        return self.source.warmup()
