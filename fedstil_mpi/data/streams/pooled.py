"""All clients' training images in one: what exchange is worth if images could travel.

The steps and the memory for them are in `federation.plan`."""

import numpy as np

from fedstil_mpi.data.streams.base import Stream, Task, join
from fedstil_mpi.data.streams.view import View


class PooledStream(View):
    """Every client trains on what all clients see in that task, and is tested on its own queries and galleries."""

    def __init__(self, source: Stream):
        super().__init__(source)
        self._trained_on: dict[int, np.ndarray] = {}
        """Task -> the person in each training image, the same for every client."""

    def task(self, client: int, task: int) -> Task:
        own = self.source.task(client, task)
        trains = [own.train if c == client else self.source.task(c, task).train for c in range(self.clients)]
        return Task(join(trains), own.query, own.gallery)

    def labels(self, client: int, task: int) -> dict[str, np.ndarray]:
        if task not in self._trained_on:
            trains = [self.source.labels(c, task)["train"] for c in range(self.clients)]
            self._trained_on[task] = np.concatenate(trains)
        return self.source.labels(client, task) | {"train": self._trained_on[task]}

    def cameras(self, client: int, task: int) -> dict[str, np.ndarray] | None:
        of_clients = [self.source.cameras(c, task) for c in range(self.clients)]
        own = of_clients[client]
        return own and own | {"train": np.concatenate([cameras["train"] for cameras in of_clients if cameras])}
