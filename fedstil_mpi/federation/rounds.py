"""The rounds, in the order of the paper: distil and send, learn, validate, send back.

This is the only place that knows the order. A run uses it with MPI and real images; a plan uses it with an exchange
and a trainer that count (`planning.counting`).
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Protocol

import numpy as np

from fedstil_mpi.client.epochs import Epoch
from fedstil_mpi.client.local_training import Stopped
from fedstil_mpi.evaluation.lifelong import METRICS
from fedstil_mpi.evaluation.search import Everywhere, Search, gather
from fedstil_mpi.federation.state import Federation
from fedstil_mpi.federation.waves import Arriving, portions, rows_of
from fedstil_mpi.methods.base import Client
from fedstil_mpi.models.files import model_file, save_tail


class Checkpoints(Protocol):
    """Where a run can be interrupted. Every method but `asked` is collective: all ranks must call."""

    @property
    def asked(self) -> Callable[[], bool]:
        """Whether this rank was asked to stop. Not collective."""

    def in_round(self, f: Federation, round: int) -> None:
        """After local training, which ends early where a rank was asked to stop."""

    def after_round(self, f: Federation, round: int) -> None:
        """At the end of a round."""


class NoCheckpoints:
    """For what is never interrupted."""

    def asked(self) -> bool:
        return False

    def in_round(self, f: Federation, round: int) -> None: ...

    def after_round(self, f: Federation, round: int) -> None: ...


def run_rounds(f: Federation, checkpoints: Checkpoints, done: int = 0) -> None:
    """All rounds of the schedule after the first `done`. Collective: all ranks must call.

    A last distribution follows the last round, so that what was learned in it reaches the clients and the served models
    can be validated; the ledger books it as the round after the last.
    """
    for round, online in f.schedule.rounds(done):
        f.at(round=round)
        f.observer.begin_round(round, online)
        f.take_places(round)
        distribute(f, round, f.schedule.receivers(round))
        if round > 1 and f.schedule.evaluates(round - 1):
            validate(f, round - 1, served=True)
        learn(f, round, online, checkpoints)
        if f.models is not None and round == f.schedule.total:
            keep_local(f, f.models)
        if f.schedule.evaluates(round):
            validate(f, round, served=False)
        collect(f, round, f.schedule.senders(round))
        f.observer.end_round(round, online)
        checkpoints.after_round(f, round)
        f.put_away(f.schedule.online(round + 1) if round < f.schedule.total else ())
    last = f.schedule.total + 1
    f.at(round=last)
    receivers = sorted(f.initial_model.met.intersection(f.schedule.attendance.left(last)))
    for told in portions(receivers, f.told_at_once):
        distribute(f, last, told)
        f.put_away()
    validate(f, f.schedule.total, served=True)
    f.observer.end()
    f.at(round=None)


def distribute(f: Federation, round: int, receivers: list[int]) -> None:
    """The server sends each receiver its own knowledge; new clients also get the start model."""
    begun = round > f.schedule.first_upload  # until then the start model is all there is to know
    closes = round > f.schedule.total  # after it nobody learns, and nobody tells the server anything
    new = set(f.initial_model.send_to_new_clients(f.exchange, round, receivers, complete=not begun))
    start = f.initial_model.network.tail.state_dict() if new else {}
    parts = f.traffic.down if begun and receivers else ()
    knowledge = {}
    if f.server is not None:
        knowledge = f.server.knowledge(receivers) if parts else {}
        f.observer.relevance(round, receivers, f.server.relevance_OK if parts else None)
    for wave in f.waves(receivers):
        messages = f.exchange.down(round, parts, wave, rows_of(wave, parts, knowledge, receivers))
        for client in sorted(messages):
            f.at(client=client)
            f.change(client)
            side = f.clients[client]
            if client in new and side.learner.tail_memory.is_own:  # else it shares the start model's memory
                side.learner.start_from(start)
            side.absorb(messages.pop(client))  # each is as large as a model
            if closes:
                side.learner.untold.clear()
    f.at(client=None)
    if f.server is not None and parts and not closes:
        f.server.sent(receivers, knowledge)


def learn(f: Federation, round: int, online: list[int], checkpoints: Checkpoints) -> None:
    """The online clients train on their current tasks, all ranks at once."""
    reports = np.full((len(f.clients), 3), np.nan)
    for wave in f.waves(online):
        train(f, round, wave, checkpoints, reports)
    for client in f.clients.keys() & online:
        f.clients[client].learner.training = None  # else a pause in a round that the client misses would keep it
    with f.clock("wait"):
        gathered = f.exchange.gather(reports)
    f.observer.training(round, gathered)


def train(f: Federation, round: int, online: list[int], checkpoints: Checkpoints, reports: np.ndarray) -> None:
    """Of these clients; reports: float64 [clients, 3], to which loss, accuracy and number of new images go.

    What a client has learned stays with it until all have, in case the run pauses before.
    """
    sides = [f.clients[client] for client in online if client in f.clients]
    efforts = [f.schedule.attendance.effort(side.learner.client, round) for side in sides]
    epochs: list[Epoch] = []
    with f.verdict(), f.clock("train"), suppress(Stopped):
        for side in sides:
            f.change(side.learner.client)
            side.learner.begin_round()
            f.at(client=side.learner.client, task=side.learner.task)
            side.begin()
        epochs = f.trainer.train(round, sides, efforts, checkpoints.asked)
    f.at(client=None, task=None)
    checkpoints.in_round(f, round)
    rows = np.searchsorted(list(f.clients), [side.learner.client for side in sides])
    with f.clock("train"):
        for row, side, epoch in zip(rows, sides, epochs, strict=True):
            side.end()
            reports[row] = epoch.loss, epoch.accuracy, side.learner.samples


def keep_local(f: Federation, folder: Path) -> None:
    """The models before the last exchange, of clients that have learned anything. Collective: all ranks must call."""
    with f.verdict():
        for client, side in f.clients.made().items():
            if side.learner.draws:
                save_tail(model_file(folder, client, "local"), side.learner.tail)
                f.release()


def validate(f: Federation, round: int, *, served: bool) -> None:
    """All clients but lost ones, online or not, are searched: after local training, or with what they hold after the
    exchange, which takes place in the next round.

    Where tasks have models of their own, the newest model is searched on all tasks besides.
    """
    if served and not f.traffic.down:
        f.observer.served_is_local(round)
        return
    there = f.clients.made()  # the others have nothing to be searched with
    left = {client: there[client] for client in f.schedule.attendance.left(round + served) if client in there}
    search(f, left, round, served=served, by_task=f.task_aware)
    if f.task_aware:
        search(f, left, round, served=served, by_task=False)


def search(f: Federation, left: Mapping[int, Client], round: int, *, served: bool, by_task: bool) -> None:
    """The local or the served models of this rank's clients that are `left`. Collective: all ranks must call.

    by_task: each task is searched with a model of its own. What a model found counts as long as the client has it; where it
    searches among all clients' images, it is searched again.
    """
    searches = {
        client: f.trainer.search(side.learner, side.tail_for if by_task else None) for client, side in left.items()
    }
    everywhere = join_galleries(f, left, searches, served) if "all" in f.scopes.galleries else None
    f.any_searched = True
    metrics = np.full((len(f.clients), len(f.scopes.names), f.schedule.tasks, len(METRICS)), np.nan)
    with f.verdict(), f.clock("evaluate"):
        for row, client in enumerate(f.clients):
            if client in left:
                f.at(client=client)
                found = f.found.setdefault(client, {})
                if by_task not in found or everywhere is not None:
                    f.note_search(client)
                    with as_searched(left[client], served):
                        found[by_task] = searches[client].evaluate(f.scopes, everywhere)
                metrics[row] = found[by_task]
                del searches[client]  # its features
                f.release()
    f.at(client=None)
    with f.clock("wait"):
        gathered = f.exchange.gather(metrics)
    model = ("served" if served else "local") + "_task_free" * (f.task_aware and not by_task)
    f.observer.evaluation(round, model, gathered)


def join_galleries(
    f: Federation, left: Mapping[int, Client], searches: Mapping[int, Search], served: bool
) -> Everywhere:
    """All clients' galleries, each with its client's features; `searches` of this rank's. Collective: all ranks must call."""
    own = {}
    with f.verdict(), f.clock("evaluate"):
        for client, search in searches.items():
            f.at(client=client)
            with as_searched(left[client], served):
                own[client] = search.joined
            f.release()
    f.at(client=None)
    with f.clock("wait"):
        return gather(f.exchange.share, own, f.initial_model.network.tail.classifier.in_features)


def as_searched(side: Client, served: bool) -> AbstractContextManager[None]:
    """One client at a time: the served model can be another one beside what the client trains on."""
    return side.serving() if served else nullcontext()


def collect(f: Federation, round: int, senders: list[int]) -> None:
    """The senders send their updates back, and the server takes them in."""
    if not senders:
        return
    updates = Arriving(senders)
    for wave in f.waves(senders):
        own = {}
        for client in wave:
            if client in f.clients:
                f.change(client)
                own[client] = f.clients[client].update()
        updates.add(wave, f.traffic.up, f.exchange.up(round, f.traffic.up, wave, own))
        for client, update in own.items():
            f.change(client)
            f.clients[client].sent(update)
            f.clients[client].learner.untold.clear()
        own.clear()  # each is as large as a model
    if f.server is not None:
        f.server.collect(senders, updates.rows)
