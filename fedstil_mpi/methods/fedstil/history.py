"""What the server has seen of its clients' tasks."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedstil_mpi.util.state_tree import State


@dataclass
class TaskRecord:
    """What one client reported of one of its tasks."""

    people: frozenset[int]
    token: Tensor | None
    """Mean representation [D], or for the measure prototypes each person's [n, D]; None where the measure in use needs none."""


@dataclass
class History:
    """The tasks of every client that the server has seen, oldest first."""

    tasks: list[list[TaskRecord]] = field(default_factory=list)
    uploads: list[list[Tensor]] = field(default_factory=list)
    """Every token a client ever sent, one a round; kept for the measure reference_code alone, which reads them all."""

    @classmethod
    def empty(cls, clients: int) -> "History":
        return cls([[] for _ in range(clients)], [[] for _ in range(clients)])

    def note(self, client: int, new_task: bool, people: frozenset[int], token: Tensor | None) -> None:
        """Note one upload: of a new task, or of the one reported before, whose token it renews."""
        tasks = self.tasks[client]
        if new_task:
            tasks.append(TaskRecord(people, token))
        else:
            tasks[-1].token = token

    def seen_clients(self) -> list[int]:
        """The clients that have uploaded."""
        return [client for client, tasks in enumerate(self.tasks) if tasks]

    def state(self) -> State:
        """Of the seen clients alone, beside how many there are."""
        tasks = {
            str(client): [{"people": sorted(task.people), "token": task.token} for task in self.tasks[client]]
            for client in self.seen_clients()
        }
        uploads = {str(client): torch.stack(tokens) for client, tokens in enumerate(self.uploads) if tokens}
        return {"clients": len(self.tasks), "tasks": tasks, "uploads": uploads}

    @classmethod
    def of(cls, state: State) -> "History":
        """The history that gave this state."""
        history = cls.empty(state["clients"])
        for client, tasks in state["tasks"].items():
            history.tasks[int(client)] = [TaskRecord(frozenset(task["people"]), task["token"]) for task in tasks]
        for client, tokens in state["uploads"].items():
            history.uploads[int(client)] = list(tokens)
        return history
