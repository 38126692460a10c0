"""multi: every client learns alone and keeps one model per task (the upper bound of learning alone: nothing to forget).

A task's model starts from the previous task's. Searching a task with its own model needs to know which task a query is
from, and as many models as tasks.
"""

import copy
from dataclasses import dataclass
from typing import Any

from fedstil_mpi.client.learner import Learner
from fedstil_mpi.methods import base, single
from fedstil_mpi.methods.base import Server, Setup
from fedstil_mpi.models.network import Tail
from fedstil_mpi.util.state_tree import State

__all__ = ["PRESETS", "Client", "Options", "Server"]


@dataclass(kw_only=True)
class Options:
    """Learning alone has nothing to choose."""


PRESETS: dict[str, dict[str, Any]] = single.PRESETS


class Client(base.Client):
    task_aware = True

    def __init__(self, learner: Learner, setup: Setup, options: Options):
        super().__init__(learner, setup, options)
        self.finished: dict[int, Tail] = {}
        """Task -> the model after its last round."""

    def end(self) -> None:
        if self.learner.task_ends:
            self.finished[self.learner.task] = copy.deepcopy(self.learner.tail)

    def tail_for(self, task: int) -> Tail:
        """The task's own model; for a task that is being trained or still to come the newest."""
        return self.finished.get(task, self.learner.tail)

    def state(self) -> State:
        return {"finished": {str(task): dict(tail.state_dict()) for task, tail in self.finished.items()}}

    def restore(self, state: State) -> None:
        for task, tail in state["finished"].items():
            self.finished[int(task)] = copy.deepcopy(self.learner.tail)
            self.finished[int(task)].load_state_dict(tail)
