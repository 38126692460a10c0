"""Who takes part in a round, and who exchanges in it."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
    exchange_every: int = 1

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

    def receivers(self, round: int) -> list[int]:
        """The online clients that are sent knowledge: of these the server has all that they learned, which may be nothing."""
        return self._exchanges[round - 1][0]

    def senders(self, round: int) -> list[int]:
        """The clients that send what they learned; after the last round also those that are behind and not online."""
        return self._exchanges[round - 1][1]

    @cached_property
    def first_upload(self) -> int:
        """The first round after which the server knows more than the start model."""
        return next(round for round in range(1, self.total + 1) if self.senders(round))

    @cached_property
    def _exchanges(self) -> list[tuple[list[int], list[int]]]:
        left = self.attendance.left(self.total)
        return exchanges(self._online, self.exchange_every, left)

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


def exchanges(rounds: Sequence[list[int]], every: int, left: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Who receives and who sends in each round, in client order: a client in every so many-th of its own rounds.

    rounds: the online clients of each; left: the clients that are not lost at the end, when all send what they have not.
    """
    draws: Counter[int] = Counter()
    found = []
    for online in rounds:
        receivers = [client for client in online if draws[client] % every == 0]
        draws.update(online)
        found.append((receivers, [client for client in online if draws[client] % every == 0]))
    receivers, senders = found[-1]
    behind = {client for client in left if draws[client] % every}
    found[-1] = receivers, sorted(behind.union(senders))
    return found


def plan(
    seed: int,
    clients: int,
    tasks: int,
    per_task: int,
    total: int | None,
    drawn: int | None,
    evaluate_every: int | None,
    participation: Participation | None = None,
    exchange_every: int = 1,
) -> Schedule:
    """The schedule; `total` None: as many rounds as all clients need for all tasks when `drawn` take part in each."""
    drawn = min(drawn or clients, clients)
    total = total or math.ceil(per_task * tasks * clients / drawn)
    every = evaluate_every or per_task
    there = participation or Participation()
    return Schedule(seed, clients, tasks, per_task, total, drawn, every, there, exchange_every=exchange_every)
