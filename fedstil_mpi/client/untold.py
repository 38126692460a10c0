"""What a client has to tell the server: what it did in the rounds since it last sent something.

Where it exchanges in every round these are that round alone; else the message after several of them is about all.
"""

from dataclasses import dataclass, field

from torch import Tensor

from fedstil_mpi.client.tasks import task_begins, task_ends, task_of_draw
from fedstil_mpi.comm.flat import Layout
from fedstil_mpi.util.shelf import Compartment
from fedstil_mpi.util.state_tree import State


@dataclass
class Untold:
    per_task: int
    tasks: int
    draws: list[int] = field(default_factory=list)
    """Which of the client's own rounds, from 1."""
    samples: int = 0
    """New images seen in them."""
    start: Tensor | None = None
    """The travelling weights as the server knows them, float32 [P] on the CPU, from receipt until it is told."""

    derived = ("per_task", "tasks")
    transient = ("start",)  # while there is something untold the state holds it

    @property
    def begun_tasks(self) -> list[int]:
        """The tasks that began in these rounds."""
        begun = [draw for draw in self.draws if task_begins(draw, self.per_task, self.tasks)]
        return [task_of_draw(draw, self.per_task, self.tasks) for draw in begun]

    @property
    def ended_task(self) -> bool:
        """Whether a task ended in these rounds."""
        return any(task_ends(draw, self.per_task, self.tasks) for draw in self.draws)

    def clear(self) -> None:
        """The server has been told, and what it brings next the client is told from."""
        self.draws.clear()
        self.samples = 0
        self.start = None

    def put_away(self, shelf: Compartment) -> None:
        """As long as the server is to be told something the start lies on the shelf; the next knowledge brings another."""
        self.start = shelf.put("start", self.start)

    def state(self) -> State:
        return {"draws": self.draws, "samples": self.samples, "start": self.start if self.draws else None}

    def restore(self, state: State) -> None:
        self.draws, self.samples, self.start = state["draws"], state["samples"], state["start"]


def server_knows(learner: State, layout: Layout) -> Tensor:
    """The travelling weights as the server knows them of a client whose learner has this state, float32 [P] on the CPU."""
    start = learner["untold"]["start"]
    return layout.pack(learner["tail"]) if start is None else start
