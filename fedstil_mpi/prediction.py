"""How many bytes a run will move, from the layouts and the stream's labels alone."""

from collections.abc import Callable, Mapping

import numpy as np

from fedstil_mpi.comm.flat import Part
from fedstil_mpi.comm.ledger import DOWN, UP, Ledger
from fedstil_mpi.methods.common.base import Traffic, Visit
from fedstil_mpi.schedule import Schedule, task_begins, task_ends, task_of_draw


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
            book(round, client, UP, traffic.up, items.up(client, Visit(task_begins(*when), task_ends(*when), met)))
    for client in range(schedule.clients):
        if draws[client]:
            book(schedule.total + 1, client, DOWN, traffic.down, items.down(client))
    return ledger
