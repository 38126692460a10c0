"""How many bytes a run will move, from the layouts and the stream's labels alone."""

from collections.abc import Callable

import numpy as np
import torch

from fedstil_mpi.comm.flat import HEADER_BYTES, Part
from fedstil_mpi.comm.ledger import DOWN, UP, Ledger
from fedstil_mpi.methods.common.base import Traffic
from fedstil_mpi.methods.common.prototypes import Relay
from fedstil_mpi.schedule import Schedule, task_begins, task_of_draw


def predict(
    schedule: Schedule,
    first_contact: Callable[[int], tuple[Part, ...]],
    traffic: Traffic,
    people: Callable[[int, int], np.ndarray],
) -> Ledger:
    """The ledger a run will end with.

    first_contact: the parts a client gets that is new in a round; people: the ids a client meets in a task. The only
    ragged parts it knows are people and their prototypes, whose numbers follow from who meets whom when.
    """
    ledger = Ledger()
    relay = Relay(schedule.clients)
    draws = [0] * schedule.clients

    def book(round: int, client: int, direction: str, parts: tuple[Part, ...], items: int) -> None:
        for part in parts:
            ledger.book(round, client, direction, part.kind, part.itemsize * (items if part.ragged else 1))
            if part.ragged:
                ledger.book(round, client, direction, "header", HEADER_BYTES)

    for round, online in schedule.rounds():
        for client in online:
            if draws[client] == 0:
                book(round, client, DOWN, first_contact(round), 0)
            if round > 1:
                book(round, client, DOWN, traffic.down, len(relay.deliver(client)[0]))
        for client in online:
            draws[client] += 1
            task = task_of_draw(draws[client], schedule.per_task, schedule.tasks)
            begins = task_begins(draws[client], schedule.per_task, schedule.tasks)
            met = people(client, task).tolist() if begins else []
            book(round, client, UP, traffic.up, len(met))
            relay.collect(client, met, torch.empty(len(met), 0))
    for client in range(schedule.clients):
        if draws[client]:
            book(schedule.total + 1, client, DOWN, traffic.down, len(relay.deliver(client)[0]))
    return ledger
