"""The rounds, in the order of the paper: distil and send, learn, validate, send back."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from fedstil_mpi.clock import Clock
from fedstil_mpi.comm.exchange import Exchange
from fedstil_mpi.comm.world import World
from fedstil_mpi.contact import FirstContact
from fedstil_mpi.evaluation.lifelong import METRICS
from fedstil_mpi.methods.common.base import Client, Server, Traffic
from fedstil_mpi.results.record import Record
from fedstil_mpi.schedule import Schedule


@dataclass
class Federation:
    """One rank's view of everything that takes part."""

    world: World
    schedule: Schedule
    exchange: Exchange
    contact: FirstContact
    traffic: Traffic
    task_aware: bool
    """Whether the method searches each task with a model of its own."""
    clients: dict[int, Client]
    """The clients this rank plays."""
    server: Server | None
    """On rank 0; elsewhere None."""
    record: Record | None
    """On rank 0; elsewhere None."""
    clock: Clock
    progress: Callable[[Iterable], Iterable] = iter
    """Wraps the rounds where somebody watches."""


def run_rounds(federation: Federation) -> None:
    """All rounds of the schedule. Collective: all ranks must call.

    A last distribution follows the last round, so that what was learned in it reaches the clients and the served models
    can be validated; the ledger books it as the round after the last.
    """
    f = federation
    for round, online in f.progress(f.schedule.rounds()):
        f.world.at(round=round)
        distribute(f, round, online)
        if round > 1 and f.schedule.evaluates(round - 1):
            validate(f, round - 1, served=True)
        learn(f, round, online)
        if f.schedule.evaluates(round):
            validate(f, round, served=False)
        collect(f, round, online)
        if f.record is not None:
            f.record.end_round(round, online)
    distribute(f, f.schedule.total + 1, sorted(f.contact.met))
    validate(f, f.schedule.total, served=True)
    f.world.at(round=None)


def distribute(f: Federation, round: int, online: list[int]) -> None:
    """The server sends each online client its own knowledge; clients it never met before also get the start model."""
    for client in f.contact.greet(f.exchange, round, online):
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


def learn(f: Federation, round: int, online: list[int]) -> None:
    """The online clients train on their current tasks, one after the other on a rank, all ranks at once."""
    report = np.full((len(f.clients), 3), np.nan)
    with f.clock("train"):
        for row, (client, side) in enumerate(f.clients.items()):
            if client in online:
                side.learner.begin_round()
                f.world.at(client=client, task=side.learner.task)
                side.begin()
                epoch = side.learner.train(round, side.penalty)
                side.end()
                report[row] = epoch.loss, epoch.accuracy, side.learner.samples
    f.world.at(client=None, task=None)
    with f.clock("wait"):
        reports = f.world.gather_rows(report)
    if f.record is not None and reports is not None:
        f.record.training(round, reports)


def validate(f: Federation, round: int, *, served: bool) -> None:
    """All clients, online or not, are searched: after local training, or with what they hold after the exchange.

    Where tasks have models of their own, the newest model is searched on all tasks besides.
    """
    if served and not f.traffic.down:
        if f.record is not None:
            f.record.served_is_local(round)
        return
    view = "served" if served else "local"
    search(f, round, view, lambda side: side.learner.evaluate(side.tail_for))
    if f.task_aware:
        search(f, round, f"{view}_task_free", lambda side: side.learner.evaluate())


def search(f: Federation, round: int, view: str, evaluate: Callable[[Client], np.ndarray]) -> None:
    """One view of all clients' models. Collective: all ranks must call."""
    metrics = np.full((len(f.clients), f.schedule.tasks, len(METRICS)), np.nan)
    with f.clock("evaluate"):
        for row, (client, side) in enumerate(f.clients.items()):
            f.world.at(client=client)
            metrics[row] = evaluate(side)
    f.world.at(client=None)
    with f.clock("wait"):
        gathered = f.world.gather_rows(metrics)
    if f.record is not None and gathered is not None:
        f.record.evaluation(round, view, gathered)


def collect(f: Federation, round: int, online: list[int]) -> None:
    """The online clients send their updates back, and the server takes them in."""
    own = {client: side.update() for client, side in f.clients.items() if client in online}
    updates = f.exchange.up(round, f.traffic.up, online, own)
    if f.server is not None:
        f.server.collect(online, updates)
