"""A client's tasks, each made when it is first asked for."""

from collections.abc import Mapping, Sequence

from fedstil_mpi.data.streams.base import Stream, Task


class TasksOnDemand(Sequence[Task]):
    def __init__(self, stream: Stream, client: int, made: Mapping[int, Task] | None = None):
        """made: those that are there already."""
        self.stream = stream
        self.client = client
        self.made = dict(made or {})

    def __getitem__(self, task: int) -> Task:  # type: ignore[override]
        if not 0 <= task < len(self):
            raise IndexError(task)
        if task not in self.made:
            self.made[task] = self.stream.task(self.client, task)
        return self.made[task]

    def __len__(self) -> int:
        return self.stream.tasks


def made_of(tasks: Sequence[Task]) -> dict[int, Task]:
    """Those that are there."""
    return tasks.made if isinstance(tasks, TasksOnDemand) else dict(enumerate(tasks))
