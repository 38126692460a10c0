"""Clients that move from rank to rank between rounds, so that all ranks have about as much to do (`federation.balance`).

A client moves with all that its rank has of it: its state, as a checkpoint would keep it, its images, and what the stem made of
them. So nothing is read, drawn or computed again, and results are those of a run in which everyone stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from fedstil_mpi.client.learner import Learner
from fedstil_mpi.comm.parcels import hand_over
from fedstil_mpi.comm.world import World
from fedstil_mpi.data.streams.base import SPLITS, Images, Task
from fedstil_mpi.data.streams.on_demand import TasksOnDemand, made_of
from fedstil_mpi.federation.balance import Dealing, deal
from fedstil_mpi.federation.roster import Roster
from fedstil_mpi.federation.shared_resources import SharedResources
from fedstil_mpi.federation.state import Federation
from fedstil_mpi.federation.waves import portions
from fedstil_mpi.util.state_tree import State, from_bytes, to_bytes


@dataclass(frozen=True)
class Moving:
    """What it takes, as one rank sees it."""

    world: World
    dealing: Dealing
    resources: SharedResources
    learners: Roster[Learner]


class Move(NamedTuple):
    client: int
    start: int
    end: int
    """Ranks."""


def take_places(f: Federation, moving: Moving, round: int) -> None:
    """Bring the online clients of a round to the ranks that play them in it. Collective: all ranks must call."""
    dealing, rank_of = moving.dealing, f.exchange.rank_of
    has = dealing.has(round, rank_of, f.initial_model.met)
    dealt = deal(dealing.work[round - 1], has, dealing.players)
    moves = [Move(client, rank_of[client], rank) for client, rank in sorted(dealt.items()) if rank != rank_of[client]]
    with f.clock("exchange"):
        _move(f, moving, [move for move in moves if move.client not in has], empty_handed=True)
        for some in portions([move for move in moves if move.client in has], f.at_once):
            _move(f, moving, some, empty_handed=False)


def _move(f: Federation, moving: Moving, moves: Sequence[Move], *, empty_handed: bool) -> None:
    """empty_handed: of these clients there is nothing yet."""
    if not moves:
        return
    rank = moving.world.rank
    gone, come = [move for move in moves if move.start == rank], [move for move in moves if move.end == rank]
    parcels = []
    if not empty_handed:
        leaving = [(move.end, to_bytes(_packed(f, moving, move.client))) for move in gone]
        parcels = hand_over(moving.world, leaving, [move.start for move in come])
    for move in gone:
        _let_go(f, moving, move.client)
    for roster in (f.clients, moving.learners):
        roster.change([move.client for move in gone], [move.client for move in come])
    f.exchange.rank_of.update((move.client, move.end) for move in moves)
    for move, parcel in zip(come, parcels, strict=not empty_handed):
        _unpack(f, moving, move.client, from_bytes(parcel.tobytes()))
    if f.at_once:
        f.put_away()


def _let_go(f: Federation, moving: Moving, client: int) -> None:
    """Of all but the rosters' entries."""
    side = f.clients.made().get(client)
    if side is not None:
        del side.learner.views, side.learner.comparison  # circles through these would keep its memory
    f.forget(client)
    moving.resources.forget(client)


def _packed(f: Federation, moving: Moving, client: int) -> State:
    """All that this rank has of a client."""
    made = f.clients.made()
    return {
        "state": f.client_state(client) if client in made else None,
        "represented": made[client].learner.views.kept() if client in made else [],
        "images": [
            [task, [[torch.from_numpy(array) for array in getattr(images, split).arrays] for split in SPLITS]]
            for task, images in made_of(moving.resources.tasks_of(client)).items()
        ],
    }


def _unpack(f: Federation, moving: Moving, client: int, packed: State) -> None:
    tasks = {
        task: Task(*(Images(*(array.numpy() for array in arrays)) for arrays in splits))
        for task, splits in packed["images"]
    }
    moving.resources.tasks[client] = TasksOnDemand(moving.resources.stream, client, tasks)
    if packed["state"] is not None:
        f.restore_client(client, packed["state"])
        f.changed.add(client)  # as it takes part in this round
        learner = f.clients[client].learner
        learner.views.take(packed["represented"], learner.device)
