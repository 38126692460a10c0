"""Who takes part in a round."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from fedstil_mpi.config.schema import Participation
from fedstil_mpi.federation.participation import Attendance
from fedstil_mpi.util import seeding


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
    """Client -> the first round without it: those of a rank that has died, which no other rank took over."""

    @cached_property
    def attendance(self) -> Attendance:
        return Attendance(self.seed, self.clients, self.total, self.participation, self.lost)

    def online(self, round: int) -> list[int]:
        """The clients that take part in a round, in client order."""
        return self._online[round - 1]

    @cached_property
    def _online(self) -> list[list[int]]:
        return [self._drawn(round) for round in range(1, self.total + 1)]

    def _drawn(self, round: int) -> list[int]:
        """Drawn from those who are there, without replacement."""
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
