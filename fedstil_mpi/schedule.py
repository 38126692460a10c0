"""Who takes part in a round, which task it is for them, and when local training stops."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from fedstil_mpi import seeding
from fedstil_mpi.config import Participation
from fedstil_mpi.participation import Attendance


@dataclass(frozen=True)
class Schedule:
    """The plan of all rounds, known to every rank from the config alone. Rounds count from 1, tasks from 0."""

    seed: int
    clients: int
    tasks: int
    per_task: int
    total: int
    clients_per_round: int
    evaluate_every: int
    participation: Participation = field(default_factory=Participation)
    lost: Mapping[int, int] = field(default_factory=dict)
    """Client -> the first round without it: those whose rank has died and whom nobody took over."""

    @cached_property
    def attendance(self) -> Attendance:
        return Attendance(self.seed, self.clients, self.total, self.participation, self.lost)

    def online(self, round: int) -> list[int]:
        """The clients that take part in a round, in client order; drawn from those who are there without replacement."""
        there = self.attendance.present(round)
        if self.clients_per_round >= len(there):
            return there
        draw = seeding.generator(self.seed, "online", round)
        return sorted(draw.choice(there, self.clients_per_round, replace=False).tolist())

    def efforts(self) -> np.ndarray:
        """The share of its local training that each client gets done, float64 [rounds, clients]; nan: it takes no part."""
        efforts = np.full((self.total, self.clients), np.nan)
        for round, online in self.rounds():
            efforts[round - 1, online] = [self.attendance.effort(client, round) for client in online]
        return efforts

    def evaluates(self, round: int) -> bool:
        return round == self.total or round % self.evaluate_every == 0

    def rounds(self, done: int = 0) -> Iterator[tuple[int, list[int]]]:
        """(round, online clients) from 1, or from the one after `done`, to the last."""
        return ((round, self.online(round)) for round in range(done + 1, self.total + 1))


def plan(
    seed: int,
    clients: int,
    tasks: int,
    per_task: int,
    total: int | None,
    drawn: int | None,
    evaluate_every: int | None,
    participation: Participation | None = None,
) -> Schedule:
    """The schedule; `total` None: as many rounds as all clients need for all tasks when `drawn` take part in each."""
    drawn = min(drawn or clients, clients)
    total = total or math.ceil(per_task * tasks * clients / drawn)
    every = evaluate_every or per_task
    return Schedule(seed, clients, tasks, per_task, total, drawn, every, participation or Participation())


def task_of_draw(draw: int, per_task: int, tasks: int) -> int:
    """The 0-based task a client trains when it is drawn for the `draw`-th time (from 1); it stays on its last task."""
    return min((draw - 1) // per_task, tasks - 1)


def task_begins(draw: int, per_task: int, tasks: int) -> bool:
    """Whether the `draw`-th draw (from 1) is a client's first on its task."""
    return task_of_draw(draw, per_task, tasks) != task_of_draw(draw - 1, per_task, tasks)


def task_ends(draw: int, per_task: int, tasks: int) -> bool:
    """Whether the `draw`-th draw (from 1) is a client's last on its task; the last task never ends."""
    return task_begins(draw + 1, per_task, tasks)


@dataclass
class EarlyStop:
    """Stop after three epochs in a row that were not at least as good in loss AND accuracy as the best so far."""

    best_loss: float = 1e8
    best_accuracy: float = 0.0
    bad: int = 0

    def update(self, loss: float, accuracy: float) -> bool:
        """Note one epoch; True: stop now."""
        self.bad += 1
        if loss <= self.best_loss and accuracy >= self.best_accuracy:
            self.best_loss, self.best_accuracy, self.bad = loss, accuracy, 0
        return self.bad >= 3


@dataclass
class ReferenceRate:
    """The published step decay: x0.1 every 5 epochs over a client's whole life, but the rate is reset each round."""

    initial: float
    epochs: int = 0
    rate: float = 0.0

    def new_round(self) -> None:
        self.rate = self.initial

    def step(self) -> None:
        self.epochs += 1
        if self.epochs % 5 == 0:
            self.rate *= 0.1


@dataclass(frozen=True)
class Epoch:
    """What one pass over the data reports: mean loss over batches, share of correct images, images seen."""

    loss: float
    accuracy: float
    images: int


def run_epochs(
    count: int, run: Callable[[float], Epoch], stop: EarlyStop | None, rate: ReferenceRate
) -> tuple[list[Epoch], list[float]]:
    """Run up to `count` epochs, each by `run(learning_rate)`; returns every epoch run and the rate it used.

    Where `stop` ends the round, the epoch that made it stop is the last of the list (it was trained; the published code
    leaves it out of its counts).
    """
    epochs: list[Epoch] = []
    rates: list[float] = []
    rate.new_round()
    for _ in range(count):
        rates.append(rate.rate)
        epochs.append(run(rate.rate))
        rate.step()
        if stop is not None and stop.update(epochs[-1].loss, epochs[-1].accuracy):
            break
    return epochs, rates
