"""The real loop in one process: with images and training, and as a plan counts it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fedstil_mpi import methods
from fedstil_mpi.client.learner import Learner
from fedstil_mpi.comm.exchange import InProcessExchange
from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.data.streams.base import Stream, Task
from fedstil_mpi.evaluation.scopes import Scopes
from fedstil_mpi.federation.messages import message_schema
from fedstil_mpi.federation.observer import Observer
from fedstil_mpi.federation.plan import Plan
from fedstil_mpi.federation.rounds import NoCheckpoints, run_rounds
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.federation.setup import connect
from fedstil_mpi.federation.state import Federation, nowhere
from fedstil_mpi.federation.trainer import OneByOne
from fedstil_mpi.methods.aids import innermost
from fedstil_mpi.models.network import Network
from fedstil_mpi.planning.forecast import counting_federation
from fedstil_mpi.planning.hollow import hollow
from fedstil_mpi.results.writing.record import Record
from fedstil_mpi.results.writing.run_folder import RunFolder
from fedstil_mpi.util.shelf import Shelf
from support import tiny

PERSONS = [[{1, 2}, {3, 4}, {5}], [{2, 3}, {1}, {6, 5}], [{4, 2}, {2}, {1, 3}], [{7, 8}, {8, 9}, {2, 7}]]
FOUR = [[tiny.task(*of, images=2) for of in tasks] for tasks in PERSONS]
"""Four clients with three tasks."""
PEOPLE = [[(1, 2), (2, 3, 4), (5,)], [(2, 6), (1,), (6, 4, 7)], [(3, 4), (2,), (1, 3)]]
IMAGES = [[3, 4, 2], [5, 3, 4], [4, 3, 3]]
THREE = [
    [tiny.task(*people, images=images) for people, images in zip(*of, strict=True)]
    for of in zip(PEOPLE, IMAGES, strict=True)
]
"""Three clients with three tasks of different sizes."""


class Given(Stream):
    """Tasks that are there already."""

    def __init__(self, streams: Sequence[Sequence[Task]]):
        self.streams = streams
        self.clients, self.tasks = len(streams), len(streams[0])

    def task(self, client: int, task: int) -> Task:
        return self.streams[client][task]

    def pids(self, client: int, task: int) -> np.ndarray:
        return np.unique(self.task(client, task).train.pids)


def plan_of(config: Experiment, schedule: Schedule, height: int = 16, width: int = 8) -> Plan:
    config = replace(config, data=replace(config.data, height=height, width=width))
    return Plan(config, methods.load(config.method.name), schedule, tiny.CLASSES, Scopes(config.evaluation.gallery))


def federation(
    config: Experiment,
    streams: Sequence[Sequence[Task]],
    schedule: Schedule,
    start: Network | None = None,
    in_files: bool = False,
    at_once: int | None = None,
) -> Federation:
    """A client for every stream, ready for its first round. in_files, at_once: as of `methods.base.Setup`."""
    start = start or tiny.network()
    learners = [Learner(client, config, tasks, start) for client, tasks in enumerate(streams)]
    plan = plan_of(config, schedule)
    schema = message_schema(plan.experiment, plan.method, schedule.clients, start)
    schema = replace(schema, setup=replace(schema.setup, in_files=in_files, at_once=at_once))
    return connect(plan, schema, dict(enumerate(learners)), InProcessExchange(), OneByOne(nowhere))


def play(
    config: Experiment,
    streams: Sequence[Sequence[Task]],
    schedule: Schedule,
    start: Network | None = None,
    observer: Observer | None = None,
) -> Federation:
    """All rounds with training and searches."""
    f = federation(config, streams, schedule, start)
    f.observer = observer or f.observer
    run_rounds(f, NoCheckpoints())
    return f


def play_recorded(
    config: Experiment,
    streams: Sequence[Sequence[Task]],
    schedule: Schedule,
    folder: Path,
    *,
    in_files: bool,
    at_once: int | None = None,
) -> tuple[Federation, Record]:
    """As `play`, with what a run records. in_files: models of clients that are away lie on a shelf; at_once: in waves."""
    f = federation(config, streams, schedule, in_files=in_files, at_once=at_once)
    f = replace(f, shelf=Shelf() if in_files else None, at_once=at_once)
    f.observer = record = Record(RunFolder(folder), schedule, f.exchange.ledger, f.events, f.scopes.names)
    run_rounds(f, NoCheckpoints())
    return f, record


def check_alike(one: tuple[Federation, Record], other: tuple[Federation, Record]) -> None:
    """All that was sent, measured and learned is the same, to the last bit."""
    (f, of_one), (g, of_other) = one, other
    assert g.exchange.ledger.entries == f.exchange.ledger.entries
    for model, rounds in of_one.metrics.items():
        for round, metrics in rounds.items():
            torch.testing.assert_close(of_other.metrics[model][round], metrics, rtol=0, atol=0, equal_nan=True)
    assert of_other.relevances == of_one.relevances
    for a, b in zip(learners(g), learners(f), strict=True):
        assert a.fingerprint() == b.fingerprint()


class BothEnds(Observer):
    """Holds, after every round, what the server knows of its senders against what they have, to the last bit."""

    def __init__(self, f: Federation):
        self.f = f
        self.held: set[int] = set()
        """The clients that have sent anything."""

    def end_round(self, round: int, online: Sequence[int]) -> None:
        server = innermost(self.f.server)
        theta = server.theta if hasattr(server, "theta") else server.theta_KP
        for client in self.f.schedule.senders(round):
            assert torch.equal(innermost(self.f.clients[client]).theta(), theta[client])
            self.held.add(client)


def play_with_both_ends(config: Experiment, streams: Sequence[Sequence[Task]], schedule: Schedule) -> Federation:
    """As `play`, with `BothEnds`, for methods whose server knows every client's weights; all clients have to send."""
    f = federation(config, streams, schedule)
    f.observer = ends = BothEnds(f)
    run_rounds(f, NoCheckpoints())
    assert ends.held == set(range(schedule.clients))
    return f


def count(
    config: Experiment,
    streams: Sequence[Sequence[Task]],
    schedule: Schedule,
    start: Network | None = None,
    size: tuple[int, int] = (16, 8),
) -> Federation:
    """All rounds as a plan runs them; size: height and width of an image."""
    plan, network = plan_of(config, schedule, *size), start or tiny.network()
    schema = message_schema(plan.experiment, plan.method, schedule.clients, network)
    f = counting_federation(plan, Given(streams), hollow(network), schema)
    run_rounds(f, NoCheckpoints())
    return f


def learners(f: Federation) -> list[Learner]:
    return [side.learner for side in f.clients.values()]
