"""A client's tasks, each made when it is first asked for."""

from collections.abc import Sequence

from fedstil_mpi.data.streams.base import Stream, Task


class TasksOnDemand(Sequence[Task]):
    def __init__(self, stream: Stream, client: int):
        self.stream = stream
        self.client = client
        self._made: dict[int, Task] = {}

    def __getitem__(self, task: int) -> Task:  # type: ignore[override]
        if not 0 <= task < len(self):
            raise IndexError(task)
        if task not in self._made:
            self._made[task] = self.stream.task(self.client, task)
        return self._made[task]

    def __len__(self) -> int:
        return self.stream.tasks
