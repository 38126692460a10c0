"""Federations that are played without MPI, beside what is predicted of them."""

import numpy as np
from fedstil_mpi.planning.prediction import predict

from fedstil_mpi import methods
from fedstil_mpi.comm.ledger import DOWN, Ledger
from fedstil_mpi.data.streams.base import Stream
from fedstil_mpi.federation.initial_model import InitialModel
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.planning import workload
from support import tiny

PERSONS = [[{1, 2}, {3, 4}, {5}], [{2, 3}, {1}, {6, 5}], [{4, 2}, {2}, {1, 3}], [{7, 8}, {8, 9}, {2, 7}]]
"""Of the ledgers, by client and task."""


def people(client: int, task: int) -> np.ndarray:
    return np.array(sorted(PERSONS[client][task]), np.int64)


def ledgers(method: str, preset: str, plan: Schedule, settings: dict) -> tuple[Ledger, Ledger]:
    """The ledger of a federation that was played without training, and the predicted one."""
    config = tiny.experiment({"rounds.per_task": plan.per_task} | settings, method, preset)
    start = tiny.network()
    federation = tiny.federation(config, [[tiny.task(*of, images=2) for of in tasks] for tasks in PERSONS], start)
    contact = InitialModel(start, (), federation.clients[0].setup.layout.names if federation.traffic.down else ())
    met: set[int] = set()
    for number, online in plan.rounds():
        for client in sorted(set(online) - met):
            for part in contact.parts(number):
                federation.ledger.book(number, client, DOWN, part.kind, part.itemsize)
        met |= set(online)
        federation.distribute(number, online)
        for client in online:
            side = federation.clients[client]
            side.learner.begin_round()
            side.begin()
            side.end()
        federation.collect(number, online)
    federation.distribute(plan.total + 1, sorted(met))
    return federation.ledger, predict(plan, contact.parts, federation.traffic, people)


PEOPLE = [[(1, 2), (2, 3, 4), (5,)], [(2, 6), (1,), (6, 4, 7)], [(3, 4), (2,), (1, 3)]]
IMAGES = [[3, 4, 2], [5, 3, 4], [4, 3, 3]]


class Given(Stream):
    """Tasks of noise pictures, which know their labels by way of the pictures."""

    clients, tasks = 3, 3

    def task(self, client, task):
        return tiny.task(*PEOPLE[client][task], images=IMAGES[client][task])


def passes(config, schedule):
    """The passes of a federation that really trains and is really searched, and the predicted ones."""
    stream, start = Given(), tiny.network()
    streams = [[stream.task(client, task) for task in range(3)] for client in range(3)]
    parts = tiny.federation(config, streams, start)
    learners = [side.learner for side in parts.clients]

    def search():
        for by_task in (True, False) if parts.clients[0].task_aware else (False,):
            parts.search(by_task)

    for number, online in schedule.rounds():
        parts.distribute(number, online)
        if number > 1 and parts.traffic.down and schedule.evaluates(number - 1):
            search()
        for client in online:
            side = parts.clients[client]
            side.learner.begin_round()
            side.begin()
            side.learner.train(number, side.penalty, side.context(), schedule.attendance.effort(client, number))
            side.end()
        if schedule.evaluates(number):
            search()
        parts.collect(number, online)
    parts.distribute(schedule.total + 1, [learner.client for learner in learners if learner.draws])
    if parts.traffic.down:
        search()
    contact = InitialModel(start, (), parts.clients[0].setup.layout.names)
    ledger = predict(schedule, contact.parts, parts.traffic, stream.pids)
    module = methods.load(config.method.name)
    loads = workload.play(config, module, schedule, stream, parts.traffic, ledger)
    return learners, loads
