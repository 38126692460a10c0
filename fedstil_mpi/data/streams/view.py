"""Streams that are made of another."""

from collections.abc import Mapping

import numpy as np

from fedstil_mpi.data.streams.base import Images, Stream, Task


class View(Stream):
    """`source` with something changed; what a view does not change is the source's."""

    def __init__(self, source: Stream):
        self.source = source
        self.clients, self.tasks = source.clients, source.tasks

    @property
    def on_demand(self) -> bool:  # type: ignore[override]
        return self.source.on_demand

    @property
    def passed_over(self) -> Mapping[str, int]:  # type: ignore[override]
        return self.source.passed_over

    def task(self, client: int, task: int) -> Task:
        return self.source.task(client, task)

    def labels(self, client: int, task: int) -> dict[str, np.ndarray]:
        return self.source.labels(client, task)

    def cameras(self, client: int, task: int) -> dict[str, np.ndarray] | None:
        return self.source.cameras(client, task)

    def warmup(self) -> Images | None:
        return self.source.warmup()
