"""The rounds, in the order of the paper: distil and send, learn, validate, send back."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedstil_mpi.client.epochs import Epoch
from fedstil_mpi.client.local_training import Stopped
from fedstil_mpi.comm.exchange import Exchange
from fedstil_mpi.comm.world import World
from fedstil_mpi.evaluation.lifelong import METRICS
from fedstil_mpi.evaluation.search import Gallery, TailFor, client_gallery, evaluate, gather
from fedstil_mpi.federation.initial_model import InitialModel
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.methods.base import Client, Server, Traffic
from fedstil_mpi.results.writing.record import Record
from fedstil_mpi.util.clock import Clock

if TYPE_CHECKING:
    from fedstil_mpi.checkpoints.manager import CheckpointManager


@dataclass
class Federation:
    """One rank's view of everything that takes part."""

    world: World
    schedule: Schedule
    exchange: Exchange
    contact: InitialModel
    traffic: Traffic
    task_aware: bool
    """Whether the method searches each task with a model of its own."""
    gallery: str
    """Where queries are searched: `evaluation.gallery`."""
    clients: dict[int, Client]
    """The clients this rank plays."""
    server: Server | None
    """On rank 0; elsewhere None."""
    record: Record | None
    """On rank 0; elsewhere None."""
    clock: Clock
    progress: Callable[[Iterable], Iterable] = iter
    """Wraps the rounds where somebody watches."""


def run_rounds(federation: Federation, checkpoints: "CheckpointManager", done: int = 0) -> None:
    """All rounds of the schedule after the first `done`. Collective: all ranks must call.

    A last distribution follows the last round, so that what was learned in it reaches the clients and the served models
    can be validated; the ledger books it as the round after the last.
    """
    f = federation
    for round, online in f.progress(f.schedule.rounds(done)):
        f.world.at(round=round)
        distribute(f, round, online)
        if round > 1 and f.schedule.evaluates(round - 1):
            validate(f, round - 1, served=True)
        learn(f, round, online, checkpoints)
        if f.schedule.evaluates(round):
            validate(f, round, served=False)
        collect(f, round, online)
        if f.record is not None:
            f.record.end_round(round, online)
        checkpoints.after_round(f, round)
    last = f.schedule.total + 1
    f.world.at(round=last)
    distribute(f, last, sorted(f.contact.met.intersection(f.schedule.attendance.left(last))))
    validate(f, f.schedule.total, served=True)
    f.world.at(round=None)


def distribute(f: Federation, round: int, online: list[int]) -> None:
    """The server sends each online client its own knowledge; clients it never met before also get the start model."""
    for client in f.contact.send_to_new_clients(f.exchange, round, online):
        if client in f.clients:
            f.clients[client].learner.start_from(f.contact.network)
    parts = f.traffic.down if round > 1 else ()  # in the first round the start model is all there is to know
    knowledge = f.server.knowledge(online) if f.server is not None and parts else {}
    if f.record is not None and f.server is not None:
        f.record.relevance(round, f.server.relevance_KK)
    for client, message in f.exchange.down(round, parts, online, knowledge).items():
        f.world.at(client=client)
        f.clients[client].absorb(message)
    f.world.at(client=None)


def learn(f: Federation, round: int, online: list[int], checkpoints: "CheckpointManager") -> None:
    """The online clients train on their current tasks, one after the other on a rank, all ranks at once."""
    epochs: dict[int, Epoch | None] = {}
    with f.clock("train"), suppress(Stopped):
        for client in (client for client in f.clients if client in online):
            side = f.clients[client]
            epochs[client] = None
            side.learner.begin_round()
            f.world.at(client=client, task=side.learner.task)
            side.begin()
            effort = f.schedule.attendance.effort(client, round)
            epochs[client] = side.learner.train(round, side.penalty, side.context(), effort, checkpoints.asked)
    f.world.at(client=None, task=None)
    checkpoints.in_round(f, round, list(epochs))
    report = np.full((len(f.clients), 3), np.nan)
    with f.clock("train"):
        for row, (client, side) in enumerate(f.clients.items()):
            if (epoch := epochs.get(client)) is not None:
                side.end()
                report[row] = epoch.loss, epoch.accuracy, side.learner.samples
    with f.clock("wait"):
        reports = f.world.gather_rows(report)
    if f.record is not None and reports is not None:
        f.record.training(round, reports)


def validate(f: Federation, round: int, *, served: bool) -> None:
    """All clients but lost ones, online or not, are searched: after local training, or with what they hold after the
    exchange, which takes place in the next round.

    Where tasks have models of their own, the newest model is searched on all tasks besides.
    """
    if served and not f.traffic.down:
        if f.record is not None:
            f.record.served_is_local(round)
        return
    view = "served" if served else "local"
    left = {client: f.clients[client] for client in f.schedule.attendance.left(round + served) if client in f.clients}
    search(f, left, round, view, by_task=f.task_aware)
    if f.task_aware:
        search(f, left, round, f"{view}_task_free", by_task=False)


def search(f: Federation, left: Mapping[int, Client], round: int, view: str, *, by_task: bool) -> None:
    """One view of the models of this rank's clients that are `left`. Collective: all ranks must call.

    by_task: each task is searched with a model of its own.
    """
    tails = {client: side.tail_for if by_task else None for client, side in left.items()}
    global_gallery = join_galleries(f, left, tails) if f.gallery == "all" else None
    metrics = np.full((len(f.clients), f.schedule.tasks, len(METRICS)), np.nan)
    with f.clock("evaluate"):
        for row, client in enumerate(f.clients):
            if client in left:
                f.world.at(client=client)
                metrics[row] = evaluate(left[client].learner, tails[client], global_gallery)
    f.world.at(client=None)
    with f.clock("wait"):
        gathered = f.world.gather_rows(metrics)
    if f.record is not None and gathered is not None:
        f.record.evaluation(round, view, gathered)


def join_galleries(f: Federation, left: Mapping[int, Client], tails: Mapping[int, TailFor | None]) -> Gallery:
    """All clients' galleries, each as its client describes it; `left` are of this rank. Collective: all ranks must call."""
    own = []
    with f.clock("evaluate"):
        for client, side in left.items():
            f.world.at(client=client)
            own.append(client_gallery(side.learner, tails[client]))
    f.world.at(client=None)
    with f.clock("wait"):
        return gather(f.world, own, f.contact.network.tail.classifier.in_features)


def collect(f: Federation, round: int, online: list[int]) -> None:
    """The online clients send their updates back, and the server takes them in."""
    own = {client: side.update() for client, side in f.clients.items() if client in online}
    updates = f.exchange.up(round, f.traffic.up, online, own)
    if f.server is not None:
        f.server.collect(online, updates)
