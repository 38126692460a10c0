"""Messages of every kind, down and up, for several numbers of clients; rank 0 prints what arrived where as JSON.

All values follow one rule, `value`, which the test applies too.
"""

import json
import time

import numpy as np
import torch

from fedstil_mpi.comm import mpi_exchange
from fedstil_mpi.comm.flat import Part
from fedstil_mpi.comm.mpi_exchange import MpiExchange
from fedstil_mpi.comm.start import start
from fedstil_mpi.launch.placement import assign_clients
from fedstil_mpi.util.clock import Clock

ROUNDS = {
    1: [[0], [], [0]],
    2: [[1], [0, 1], [], [0]],
    7: [[2, 5], [], [0, 1, 2, 3, 4, 5, 6], [6], [0, 4, 5]],
}
"""Number of clients -> the online clients of rounds 0, 1, ...; buffers have to grow and to shrink."""
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
SCALARS = 3
DOWN = [
    *(Part(str(dtype), SCALARS, dtype) for dtype in DTYPES),
    Part("one", 1),
    Part("shared", SCALARS, shared=True),
    Part("shared int", SCALARS, torch.int64, shared=True),
    Part("ragged", SCALARS, ragged=True),
    Part("ragged int", 1, torch.int64, ragged=True),
    Part("sparse", SCALARS, ragged=True, codec="sparse"),
]
UP = [part for part in DOWN if not part.shared]
LARGE_ROW = 12
"""Bytes; so that some rows are collected together, and some each by itself."""


def value(kind: str, round: int, client: int, item: int, scalar: int, up: bool) -> int:
    """Below 256, so that every dtype holds it; what is shared is as for client 0."""
    if kind == "sparse" and scalar != 1:
        return 0
    number = 100 * up + 18 * (round % 4) + 5 * client + 3 * item + scalar
    return number % 2 if kind == "torch.bool" else number


def items(round: int, client: int, up: bool) -> int:
    """How many items of a ragged part: 0 to 3, and none at all in round 2."""
    return 0 if round == 2 else (client + round + up) % 4


def tensor(part: Part, round: int, client: int, up: bool) -> torch.Tensor:
    """[scalars], or [items, scalars] of a ragged part."""
    rows = [
        [value(part.kind, round, client, item, scalar, up) for scalar in range(part.scalars)]
        for item in range(items(round, client, up) if part.ragged else 1)
    ]
    filled = torch.tensor(rows).to(part.dtype).reshape(-1, part.scalars)
    return filled if part.ragged else filled[0]


def knowledge(part: Part, round: int, online: list[int]) -> torch.Tensor | list[torch.Tensor]:
    rows = [tensor(part, round, client, False) for client in online]
    if part.shared:
        return tensor(part, round, 0, False)
    if part.ragged or not rows:
        return rows if part.ragged else torch.empty(0, part.scalars, dtype=part.dtype)
    return torch.stack(rows).T.contiguous().T  # in memory column after column


def plain(rows: torch.Tensor) -> list:
    """Dtype, shape and values."""
    return [str(rows.dtype), list(rows.shape), rows.double().tolist()]


def dealt(clients: int, ranks: int) -> list[tuple[int, ...]]:
    """The clients of each rank: in blocks, but seven by turns, the first the last rank's."""
    by_turns = [()] * (ranks > 1) + [
        tuple(range(clients))[first :: max(1, ranks - 1)] for first in range(ranks - 1 or 1)
    ][::-1]
    return by_turns if clients == 7 else assign_clients(clients, ranks)


def play(world, clients: int) -> dict:
    """All rounds of so many clients."""
    exchange = MpiExchange(world, assign_clients(clients, world.size), Clock())
    exchange.rank_of.update(
        (client, rank) for rank, of_rank in enumerate(dealt(clients, world.size)) for client in of_rank
    )
    mine = dealt(clients, world.size)[world.rank]
    downs, ups = [], []
    for round, online in enumerate(ROUNDS[clients]):
        sent = {part.kind: knowledge(part, round, online) for part in DOWN} if world.is_server else {}
        messages = exchange.down(round, DOWN, online, sent)
        downs.append({c: {kind: plain(row) for kind, row in m.items()} for c, m in messages.items()})
        own = {c: {part.kind: tensor(part, round, c, True) for part in UP} for c in online if c in mine}
        gathered = exchange.up(round, UP, online, own)
        ups.append({kind: [plain(row) for row in rows] for kind, rows in gathered.items()})
    rows = exchange.gather(np.array([[client, 10 * client] for client in mine], np.int64).reshape(-1, 2))
    measured = None if rows is None else rows.tolist()
    return {
        "mine": mine,
        "measured": measured,
        "downs": downs,
        "ups": ups,
        "moved": exchange.moved,
        "ledger": exchange.ledger.entries,
    }


def wait_for_server(world) -> dict[str, float]:
    """Where the time goes when the server comes late to an exchange."""
    clock = Clock()
    exchange = MpiExchange(world, assign_clients(1, world.size), clock)
    world.barrier()
    if world.is_server:
        time.sleep(1)
    exchange.down(0, [], [0], {})
    return clock.seconds


def mistakes(world) -> list[str]:
    """What happens where a method gives the server knowledge of the wrong kind or shape; for a single rank."""
    own, ragged = Part("own", 3), Part("ragged", 3, ragged=True)
    common = Part("common", 3, shared=True)
    happened = []
    for part, given in (
        (own, {}),
        (own, {"own": torch.ones(1, 3)}),
        (own, {"own": torch.ones(2, 4)}),
        (common, {"common": torch.ones(1)}),
        (ragged, {"ragged": [torch.ones(1, 3)]}),
        (ragged, {"ragged": [torch.ones(1, 3), torch.ones(2, 4)]}),
    ):
        exchange = MpiExchange(world, [[0, 1]], Clock())
        try:
            exchange.down(0, [part], [0, 1], given)
            happened.append("nothing")
        except Exception as error:
            happened.append(type(error).__name__)
    return happened


if __name__ == "__main__":
    with start() as world:
        mpi_exchange.LARGE_ROW = LARGE_ROW
        found = {clients: world.gather_json(play(world, clients)) for clients in ROUNDS}
        found["mistakes"] = mistakes(world) if world.size == 1 else []
        found["seconds"] = world.gather_json(wait_for_server(world))
        if world.is_server:
            print(json.dumps(found))
