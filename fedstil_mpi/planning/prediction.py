"""How many bytes a run will move, from the layouts and the stream's labels alone."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from fedstil_mpi.client.tasks import task_begins, task_ends, task_of_draw
from fedstil_mpi.comm.flat import Part
from fedstil_mpi.comm.ledger import DOWN, UP, Ledger
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.methods.base import ClientRound, Traffic


def predict(
    schedule: Schedule,
    first_contact: Callable[[int], tuple[Part, ...]],
    traffic: Traffic,
    people: Callable[[int, int], np.ndarray],
) -> Ledger:
    """The ledger a run will end with; of parts with a codec only the raw bytes are known beforehand.

    first_contact: the parts a client gets that is new in a round; people: the ids a client meets in a task.
    """
    ledger = Ledger()
    items = traffic.items(schedule.clients)
    draws = [0] * schedule.clients

    def book(round: int, client: int, direction: str, parts: tuple[Part, ...], counts: Mapping[str, int]) -> None:
        for part in parts:
            ledger.book_part(round, client, direction, part, counts[part.kind] if part.ragged else 1)

    for round, online in schedule.rounds():
        for client in online:
            if draws[client] == 0:
                book(round, client, DOWN, first_contact(round), {})
            if round > 1:
                book(round, client, DOWN, traffic.down, items.down(client))
        for client in online:
            draws[client] += 1
            when = draws[client], schedule.per_task, schedule.tasks
            met = people(client, task_of_draw(*when)).tolist()
            book(
                round, client, UP, traffic.up, items.up(client, ClientRound(task_begins(*when), task_ends(*when), met))
            )
    for client in schedule.attendance.left(schedule.total + 1):
        if draws[client]:
            book(schedule.total + 1, client, DOWN, traffic.down, items.down(client))
    return ledger


class Group(NamedTuple):
    """Rounds that are alike, and what all clients get (down) and send (up) in them together, in bytes."""

    name: str
    rounds: int
    visits: int
    """How often a client takes part, over all these rounds."""
    down: int
    up: int


def by_kind_of_round(schedule: Schedule, ledger: Ledger) -> list[Group]:
    """The rounds by what is new in them, and the distribution after the last; together they are the whole ledger."""
    draws = [0] * schedule.clients
    groups = {name: Group(name, 0, 0, 0, 0) for name in ("first contact", "a task begins", "other rounds", "closing")}

    def add(name: str, round: int, visits: int) -> None:
        group, down, up = groups[name], ledger.total(DOWN, round), ledger.total(UP, round)
        groups[name] = Group(name, group.rounds + 1, group.visits + visits, group.down + down, group.up + up)

    for round, online in schedule.rounds():
        greets = any(draws[client] == 0 for client in online)
        for client in online:
            draws[client] += 1
        begins = any(task_begins(draws[client], schedule.per_task, schedule.tasks) for client in online)
        add("first contact" if greets else "a task begins" if begins else "other rounds", round, len(online))
    add("closing", schedule.total + 1, sum(draw > 0 for draw in draws))
    return [group for group in groups.values() if group.rounds]
