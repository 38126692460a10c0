"""Who plays whom: the online clients of a round are dealt to the ranks anew, longest first, so that no rank waits long for another.

Every rank works it out alike, from the schedule alone.
"""

import math
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from functools import cache
from heapq import heapify, heapreplace
from typing import NamedTuple

from fedstil_mpi.client.local_training import shortened
from fedstil_mpi.client.tasks import task_of_draw
from fedstil_mpi.comm.places import ranks_of
from fedstil_mpi.data.streams.base import Stream
from fedstil_mpi.federation.plan import Plan

Work = Sequence[Mapping[int, int]]
"""For each round, from the first, online client -> batches of new images that it trains on."""

WORTH = 0.9
"""`auto` deals clients where the ranks that all others wait for have then at most this share of the work that they have otherwise."""

STAYING = (1.0, 0.9, 0.8, 0.6)
"""How much of the most that a rank may have to do clients that stay on it may fill, tried in turn: less where the others do not fit
in beside them. Where none fits, all are dealt anew."""


def deal(work: Mapping[int, int], has: Mapping[int, int], ranks: Sequence[int]) -> dict[int, int]:
    """Client -> the rank that plays it, of these ranks.

    work: of each client of a round. has: client -> the rank that has it; clients that no rank has may be played by any. No
    rank has more to do than if clients had been dealt longest first whoever has them (LPT: at most 4/3 of the least that is
    possible); within this, clients stay where they are, the longest before others.
    """
    clients = sorted(work, key=lambda client: (-work[client], client))
    anew = _longest_first(clients, work, dict.fromkeys(ranks, 0))
    most = max(loads(work, anew).values(), default=0)
    for share in STAYING:
        load, staying = dict.fromkeys(ranks, 0), {}
        for client in clients:
            rank = has.get(client, -1)
            if rank in load and load[rank] + work[client] <= share * most:
                staying[client] = rank
                load[rank] += work[client]
        dealt = staying | _longest_first([client for client in clients if client not in staying], work, load)
        if max(loads(work, dealt).values(), default=0) <= most:
            return dealt
    return anew


def _longest_first(clients: Sequence[int], work: Mapping[int, int], load: Mapping[int, int]) -> dict[int, int]:
    """Each, in this order, to the rank that has least to do so far, the lowest of several."""
    least = [(of_rank, rank) for rank, of_rank in load.items()]
    heapify(least)
    dealt = {}
    for client in clients:
        of_rank, dealt[client] = least[0]
        heapreplace(least, (of_rank + work[client], dealt[client]))
    return dealt


def loads(work: Mapping[int, int], rank_of: Mapping[int, int]) -> Counter[int]:
    """Rank -> what it has to do in a round."""
    load: Counter[int] = Counter()
    for client, of_client in work.items():
        load[rank_of[client]] += of_client
    return load


class Dealing(NamedTuple):
    """Who plays whom in a run; alike on all ranks."""

    work: Work
    """Of all rounds; of none where clients are not dealt."""
    players: Sequence[int]
    """The ranks among which clients are dealt; none where each stays on its rank."""
    on_demand: bool
    """Whether clients that have not been online yet are on no rank: their images are made where they play."""

    def has(self, round: int, rank_of: Mapping[int, int], met: Container[int]) -> dict[int, int]:
        """Online client of a round, from 1 -> the rank that has it. met: who was online before."""
        return {client: rank_of[client] for client in self.work[round - 1] if client in met or not self.on_demand}

    def follow(self, rank_of: Mapping[int, int]) -> Iterator[dict[int, int]]:
        """Client -> the rank that has it, round by round. rank_of: at first."""
        now, met = dict(rank_of), set[int]()
        for round, of_round in enumerate(self.work, 1):
            now |= deal(of_round, self.has(round, now, met), self.players)
            met |= of_round.keys()
            yield now

    def in_the_end(self, clients_of: Sequence[Sequence[int]]) -> list[list[int]]:
        """The clients of each rank after the last round; clients_of: at first."""
        now = ranks_of(clients_of)
        for after in self.follow(now) if self.players else ():
            now = dict(sorted(after.items()))
        return [[client for client, rank in now.items() if rank == of_rank] for of_rank in range(len(clients_of))]


def dealing(plan: Plan, stream: Stream, clients_of: Sequence[Sequence[int]]) -> Dealing:
    """As the config asks for. clients_of: the clients of each rank at first."""
    ranks = [rank for rank, clients in enumerate(clients_of) if clients]
    wanted, fixed = plan.experiment.placement.clients, Dealing([], [], stream.on_demand)
    if wanted == "fixed" or len(ranks) < 2 or plan.experiment.fault_tolerance:
        return fixed
    dealt = Dealing(work_of(plan, stream), ranks, stream.on_demand)
    return dealt if wanted == "dealt" or _pays(dealt, ranks_of(clients_of)) else fixed


def _pays(dealing: Dealing, rank_of: Mapping[int, int]) -> bool:
    """Whether ranks wait less for each other than if each client stayed on its rank."""
    work, ranks = dealing.work, len(dealing.players)
    most = WORTH * sum(max(loads(of_round, rank_of).values()) for of_round in work)
    if sum(max(*of_round.values(), sum(of_round.values()) / ranks) for of_round in work) > most:
        return False  # however evenly they are dealt
    followed = zip(work, dealing.follow(rank_of), strict=True)
    return sum(max(loads(of_round, now).values()) for of_round, now in followed) <= most


def work_of(plan: Plan, stream: Stream) -> list[dict[int, int]]:
    """`Work`; how many images are rehearsed beside is not known before, and their share of a batch is the same for all."""
    train, schedule = plan.learners_experiment.train, plan.schedule
    if train.steps and not schedule.participation.stragglers:
        return [dict.fromkeys(online, train.steps) for _, online in schedule.rounds()]

    @cache
    def batches(client: int, task: int) -> int:
        return math.ceil(len(stream.labels(client, task)["train"]) / train.batch)

    def of_client(client: int, draw: int, round: int) -> int:
        of_round = shortened(train, schedule.attendance.effort(client, round))
        task = task_of_draw(draw, schedule.per_task, schedule.tasks)
        return of_round.steps or of_round.epochs * batches(client, task)

    draws: Counter[int] = Counter()
    work = []
    for round, online in schedule.rounds():
        draws.update(online)
        work.append({client: of_client(client, draws[client], round) for client in online})
    return work
