"""Play the messages of cases through the real exchange, without any training; started by bench/communication.py.

    mpirun -n 3 python bench/traffic_ranks.py '[["resnet18", "fedstil", "best", 5], ...]'

Rank 0 prints one JSON line per case. The loop is that of a run, with
clients that count (`planning.counting`); what they send is made up to its real size with zeros.
"""

import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from traffic_cases import IMAGE, Case, moved_by_mpi, network, nonzeros, plan_of, predicted, schedule, schema_of, stream

from fedstil_mpi.comm.flat import Message, Part, Rows
from fedstil_mpi.comm.ledger import DOWN, UP, Ledger
from fedstil_mpi.comm.mpi_exchange import MpiExchange
from fedstil_mpi.comm.start import start
from fedstil_mpi.comm.world import World
from fedstil_mpi.federation.rounds import NoCheckpoints, run_rounds
from fedstil_mpi.federation.setup import connect
from fedstil_mpi.launch.placement import assign_clients
from fedstil_mpi.methods.base import Traffic
from fedstil_mpi.models.network import Network
from fedstil_mpi.planning.counting import CountingLearner, CountingTrainer, tasks_without_pixels
from fedstil_mpi.planning.hollow import hollow
from fedstil_mpi.util.clock import Clock

TASKS, PER_TASK = 2, 3


class FullSize:
    """An exchange that gives hollow messages their real size on their way: zeros go in their place.

    What is small anyway (people, numbers of samples) travels as it is.
    """

    def __init__(self, inner: MpiExchange, hollow: Traffic):
        """hollow: the parts as the federation makes them."""
        self.inner = inner
        self.ledger, self.is_server, self.gather, self.share = inner.ledger, inner.is_server, inner.gather, inner.share
        self.seconds: Counter[int] = Counter()
        """Seconds of each round."""
        self._down, self._up = ({part.kind: part.scalars for part in parts} for parts in (hollow.down, hollow.up))
        self._rows: dict[Part, Tensor] = {}

    @property
    def moved(self) -> int:
        return self.inner.moved

    def down(self, round: int, parts: Sequence[Part], online: Sequence[int], knowledge: Rows) -> dict[int, Message]:
        full = {part.kind: self._full_rows(part, knowledge[part.kind], len(online)) for part in parts if knowledge}
        with self._timed(round):
            messages = self.inner.down(round, parts, online, full)
        return {client: self._narrowed(message) for client, message in messages.items()}

    def broadcast(self, round: int, parts: Sequence[Part], online: Sequence[int], knowledge: Message) -> Message:
        full = {part.kind: self._full(part, knowledge[part.kind]) for part in parts if knowledge}
        with self._timed(round):
            message = self.inner.broadcast(round, parts, online, full)
        return self._narrowed(message)

    def up(self, round: int, parts: Sequence[Part], online: Sequence[int], updates: Mapping[int, Message]) -> Rows:
        full = {
            client: {part.kind: self._full(part, message[part.kind]) for part in parts}
            for client, message in updates.items()
        }
        with self._timed(round):
            rows = self.inner.up(round, parts, online, full)
        return {kind: self._hollow(kind, of) for kind, of in rows.items()}

    @contextmanager
    def _timed(self, round: int) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[round] += time.perf_counter() - began

    def _narrowed(self, message: Message) -> Message:
        return {kind: row[..., : self._down.get(kind)] for kind, row in message.items()}

    def _full_rows(self, part: Part, rows: Any, online: int) -> Any:
        if part.shared:
            return self._full(part, rows)
        if part.ragged:
            return [self._full(part, row) for row in rows]
        return rows if rows.shape[-1] == part.scalars else self._zeros(part, online)

    def _full(self, part: Part, row: Tensor) -> Tensor:
        if row.shape[-1] == part.scalars and not row.is_meta:  # the start model's values are nowhere
            return row
        return self._zeros(part, len(row)) if part.ragged else self._zeros(part, 1)[0]

    def _hollow(self, kind: str, rows: Any) -> Any:
        width = self._up[kind]
        return [row[..., :width] for row in rows] if isinstance(rows, list) else rows[..., :width].clone()

    def _zeros(self, part: Part, count: int) -> Tensor:
        """[count, scalars], made once and used again; some are ones in parts that travel sparsely."""
        kept = self._rows.get(part)
        if kept is None or len(kept) < count:
            kept = torch.empty(count, part.scalars, dtype=part.dtype).fill_(0)  # unlike zeros, it takes the memory now
            if part.codec == "sparse":
                kept[:, : nonzeros(part)] = 1
            self._rows[part] = kept
        return kept[:count]


def play(world: World, case: Case, model: Network) -> dict[str, Any]:
    """All rounds of a case. Collective: all ranks must call; the result is valid on rank 0."""
    rounds, empty = schedule(case.clients, TASKS, PER_TASK), hollow(model)
    clients_of, schema, plan = assign_clients(case.clients, world.size), schema_of(case, model), plan_of(case, rounds)
    labels = stream(plan)
    learners = {
        client: CountingLearner(client, plan.experiment, tasks_without_pixels(labels, client, *IMAGE), empty)
        for client in clients_of[world.rank]
    }
    inner = MpiExchange(world, clients_of, Clock())
    f = connect(plan, schema_of(case, empty), learners, inner, CountingTrainer())
    exchange = FullSize(inner, f.traffic)
    schema.initial_model.network = empty
    run_rounds(
        replace(f, exchange=exchange, initial_model=schema.initial_model, traffic=schema.traffic), NoCheckpoints()
    )
    expected = predicted(case, model, rounds)
    different = Counter(expected.entries) - Counter(exchange.ledger.entries)
    different += Counter(exchange.ledger.entries) - Counter(expected.entries)
    return {
        "different": different.total(),
        "moved": exchange.moved,
        "moved_predicted": moved_by_mpi(schema, expected, world.size),
        "quiet": quiet_seconds(exchange.seconds, exchange.ledger),
        "slowest": max(later(exchange.seconds).values()),
    }


def later(seconds: Mapping[int, float]) -> dict[int, float]:
    """Without the first two rounds, in which the buffers are made, and the closing distribution."""
    return {round: value for round, value in seconds.items() if 2 < round <= TASKS * PER_TASK}


def quiet_seconds(seconds: Mapping[int, float], ledger: Ledger) -> float:
    """Median over the later rounds that move no more than the least of them does, or one percent more."""
    moved = {round: ledger.total(DOWN, round) + ledger.total(UP, round) for round in later(seconds)}
    return statistics.median(seconds[round] for round in moved if moved[round] <= 1.01 * min(moved.values()))


if __name__ == "__main__":
    with start() as world:
        torch.set_num_threads(1)
        models: dict[str, Network] = {}
        for case in (Case(*fields) for fields in json.loads(sys.argv[1])):
            if case.backbone not in models:
                models = {case.backbone: network(case.backbone)}
            result = play(world, case, models[case.backbone])
            if world.is_server:
                print(json.dumps(result), flush=True)
