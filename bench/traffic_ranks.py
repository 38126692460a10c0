"""Play the messages of cases through the real exchange, without any training; started by bench/communication.py.

    mpirun -n 3 python bench/traffic_ranks.py '[["resnet18", "fedstil", "best", 5], ...]'

Rank 0 prints one JSON line per case. Rows are zeros (a share of them ones in parts that travel sparsely), and one row
stands for all clients of a rank, so that no client's model is in memory.
"""

import json
import statistics
import sys
import time
from collections import Counter
from typing import Any

import torch
from torch import Tensor
from traffic_cases import Case, moved_by_mpi, network, nonzeros, predicted, schedule, stream, wires

from fedstil_mpi.client.tasks import task_begins, task_ends, task_of_draw
from fedstil_mpi.comm.exchange import Exchange
from fedstil_mpi.comm.flat import Part
from fedstil_mpi.comm.ledger import DOWN, UP, Ledger
from fedstil_mpi.comm.start import start
from fedstil_mpi.comm.world import World
from fedstil_mpi.launch.placement import assign_clients
from fedstil_mpi.methods.base import ClientRound
from fedstil_mpi.models.network import Network
from fedstil_mpi.util.clock import Clock

TASKS, PER_TASK = 2, 3


class Rows:
    """Rows of zeros, made once and used again, as large as the largest asked for."""

    def __init__(self) -> None:
        self._kept: dict[Part, Tensor] = {}

    def of(self, part: Part, count: int) -> Tensor:
        """[count, scalars]."""
        kept = self._kept.get(part)
        if kept is None or len(kept) < count:
            kept = torch.empty(count, part.scalars, dtype=part.dtype).fill_(0)  # unlike zeros, it takes the memory now
            if part.codec == "sparse":
                kept[:, : nonzeros(part)] = 1
            self._kept[part] = kept
        return kept[:count]

    def knowledge(self, part: Part, items: list[dict[str, int]]) -> Any:
        """As a method's server gives it to Exchange.down; items: by online client, the numbers of ragged parts' items."""
        if part.shared:
            return self.of(part, 1)[0]
        return [self.of(part, of[part.kind]) for of in items] if part.ragged else self.of(part, len(items))

    def update(self, part: Part, items: dict[str, int]) -> Tensor:
        return self.of(part, items[part.kind]) if part.ragged else self.of(part, 1)[0]


def play(world: World, case: Case, model: Network) -> dict[str, Any]:
    """All rounds of a case. Collective: all ranks must call; the result is valid on rank 0."""
    plan = schedule(case.clients, TASKS, PER_TASK)
    wired = wires(case, model)
    traffic, people, rows = wired.traffic, stream(case).pids, Rows()
    clients_of = assign_clients(case.clients, world.size)
    exchange = Exchange(world, clients_of, torch.device("cpu"), Clock(), cuda_aware=False)
    counted = traffic.items(case.clients)
    seconds: dict[int, float] = {}

    def distribute(round: int, online: list[int]) -> float:
        items = [counted.down(client) for client in online]
        told = {part.kind: rows.knowledge(part, items) for part in traffic.down} if world.is_server else {}
        began = time.perf_counter()
        exchange.down(round, traffic.down, online, told)
        return time.perf_counter() - began

    for round, online in plan.rounds():
        wired.contact.send_to_new_clients(exchange, round, online)
        spent = distribute(round, online) if round > 1 else 0.0
        when = round, PER_TASK, TASKS
        visits = [
            ClientRound(task_begins(*when), task_ends(*when), people(client, task_of_draw(*when)).tolist())
            for client in online
        ]
        items = [counted.up(client, visit) for client, visit in zip(online, visits, strict=True)]
        mine = clients_of[world.rank]
        own = {client: {part.kind: rows.update(part, items[client]) for part in traffic.up} for client in mine}
        began = time.perf_counter()
        exchange.up(round, traffic.up, online, own)
        seconds[round] = spent + time.perf_counter() - began
    distribute(plan.total + 1, list(range(case.clients)))

    expected = predicted(case, wired, plan)
    different = Counter(expected.entries) - Counter(exchange.ledger.entries)
    different += Counter(exchange.ledger.entries) - Counter(expected.entries)
    return {
        "different": different.total(),
        "moved": exchange.moved,
        "moved_predicted": moved_by_mpi(wired, expected, world.size),
        "quiet": quiet_seconds(seconds, exchange.ledger),
        "slowest": max(later(seconds).values()),
    }


def later(seconds: dict[int, float]) -> dict[int, float]:
    """Without the first two rounds, in which the buffers are made."""
    return {round: value for round, value in seconds.items() if round > 2}


def quiet_seconds(seconds: dict[int, float], ledger: Ledger) -> float:
    """Median over the later rounds that move no more than the least of them does, or one percent more."""
    moved = {round: ledger.total(DOWN, round) + ledger.total(UP, round) for round in later(seconds)}
    return statistics.median(seconds[round] for round in moved if moved[round] <= 1.01 * min(moved.values()))


if __name__ == "__main__":
    with start() as world:
        torch.set_num_threads(1)
        models: dict[str, Network] = {}
        for case in (Case(*fields) for fields in json.loads(sys.argv[1])):
            if case.backbone not in models:
                models = {case.backbone: network(case.backbone, "cpu")}
            result = play(world, case, models[case.backbone])
            if world.is_server:
                print(json.dumps(result), flush=True)
