"""Messages between clients and a server that has some columns of each row on every rank; rank 0 prints what went wrong.

The rows are drawn from (kind, round, client), so that every rank knows what has to arrive. With it are printed the bytes that
MPI moved.
"""

import json

import torch

from fedstil_mpi.comm.column_exchange import ColumnExchange
from fedstil_mpi.comm.columns import BLOCK
from fedstil_mpi.comm.flat import Part
from fedstil_mpi.comm.start import start
from fedstil_mpi.launch.placement import assign_clients
from fedstil_mpi.util.clock import Clock

CLIENTS, P = 7, 4 * BLOCK + 5
ONLINE = ([2, 5], [], [0, 1, 2, 3, 4, 5, 6], [6])
SHARED, OWN = Part("shared", P, shared=True, columns=1), Part("own", P, columns=1)
PAIRS = Part("pairs", 2 * P, ragged=True, columns=2)
SMALL, PEOPLE = Part("small", 3), Part("people", 1, torch.int64, ragged=True)
DOWN, UP = (SHARED, OWN, PAIRS, SMALL), (OWN, PAIRS, SMALL, PEOPLE)
TOLD = frozenset({"own", "pairs", "people"})


def row(part, round, client):
    """What the whole message has of a part."""
    generator = torch.Generator().manual_seed(1000 * round + (0 if part.shared else client))
    items = (client + round) % 3 if part.ragged else 1
    drawn = torch.randint(0, 1000, (items, part.scalars), generator=generator).to(part.dtype)
    return drawn if part.ragged else drawn[0]


def cut(part, values, columns):
    """These columns of it."""
    vectors = values.view(-1, part.columns, P)[..., columns]
    return vectors.flatten(1) if part.ragged else vectors.flatten()


def known(part, round, online, columns):
    """The server's rows, of which it has these columns."""
    if part.shared:
        return cut(part, row(part, round, 0), columns)
    rows = [row(part, round, client) for client in online]
    rows = [cut(part, values, columns) for values in rows] if part.columns else rows
    return rows if part.ragged else torch.stack(rows) if rows else torch.empty(0, part.scalars)


def play(world):
    wrong = []
    mine = assign_clients(CLIENTS, world.size)[world.rank]
    exchange = ColumnExchange(world, assign_clients(CLIENTS, world.size), Clock(), P, TOLD)
    for round, online in enumerate(ONLINE):
        parts = DOWN if world.is_server else [part for part in DOWN if part.columns]
        knowledge = {part.kind: known(part, round, online, exchange.own) for part in parts if online}
        arrived = exchange.down(round, DOWN if online else (), online, knowledge)
        expected = {c: {part.kind: row(part, round, c) for part in DOWN if online} for c in online if c in mine}
        wrong += [
            f"down {round} {c} {k}" for c in expected for k in expected[c] if not equal(arrived[c][k], expected[c][k])
        ]
        own = {c: {part.kind: row(part, round, c) for part in UP} for c in online if c in mine}
        gathered = exchange.up(round, UP, online, own)
        for part in UP if online else ():
            if part.kind in TOLD or world.is_server:
                got, due = gathered[part.kind], known(part, round, online, exchange.own)
                same = all(map(equal, got, due)) if part.ragged else equal(got, due)
                wrong += [] if same and len(got) == len(due) else [f"up {round} {part.kind}"]
    joined = exchange.join(torch.arange(2.0 * P).view(2, P)[:, exchange.own])
    if world.is_server and not equal(joined, torch.arange(2.0 * P).view(2, P)):
        wrong.append("join")
    moved, kept = exchange.moved, [part.kind for _, part in exchange._buffers if part.columns]
    exchange.close()
    return {
        "wrong": wrong,
        "moved": moved,
        "kept": kept,
        "booked": exchange.ledger.entries,
        "width": exchange.own.stop - exchange.own.start,
    }


def equal(one, other):
    return one.dtype == other.dtype and torch.equal(one, other)


if __name__ == "__main__":
    with start() as world:
        found = world.gather_json(play(world))
        if world.is_server:
            print(json.dumps(found))
