"""A federation to and from its checkpoints. Every method but `lost` is collective: all ranks must call.

At the end of a round neither optimisers nor random numbers have a state: Adam starts afresh in each round, and all
randomness is seeded by (seed, client, round). Inside a round a client's training has one (`LocalTraining.state`), and what came
before it in the round is simply run again.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from math import inf
from threading import Event
from typing import Any

import torch
from torch import Tensor

from fedstil_mpi.checkpoints import coverage, files, searches
from fedstil_mpi.checkpoints.background import Background
from fedstil_mpi.checkpoints.files import Snapshot
from fedstil_mpi.checkpoints.store import Checkpoint, CheckpointStore
from fedstil_mpi.client.untold import server_knows
from fedstil_mpi.comm.failures import OrderlyEnd
from fedstil_mpi.comm.world import World
from fedstil_mpi.federation.state import Federation
from fedstil_mpi.launch.signals import PAUSED
from fedstil_mpi.methods.base import Server
from fedstil_mpi.models.network import Network, network_state
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.state_tree import State
from fedstil_mpi.util.terminal import say

APPEARS = 60.0
"""Seconds in which a file that one host has written appears on another."""


@dataclass
class CheckpointManager:
    """Keeps a run's checkpoints; the same on all ranks.

    What a checkpoint holds is copied at the end of a round, and written while the next one trains (but see `at_once`, and where
    rounds go in waves copies of all would be too many, so that each is written before the next is made);
    rank 0 completes it when all ranks have written their files.
    """

    world: World
    store: CheckpointStore
    every: int
    """Rounds between two checkpoints; 0: none."""
    asked: Callable[[], bool]
    """Whether this rank was asked to stop."""
    at_once: bool = False
    """Whether a checkpoint is complete before the next round begins: where the run goes on without ranks that die, what
    it has finished must not change."""
    thorough: bool = False
    """Whether every checkpoint is held against what it was taken of, and not only the first of a method of the user's own."""
    _writing: Background = field(default_factory=Background)
    _completing: Background = field(default_factory=Background)
    """On rank 0."""
    _clearing: Background = field(default_factory=Background)
    """On rank 0: frees disk space while it waits for the others."""
    _pending: bool = False
    """Whether one was begun, and not yet waited for; the same on all ranks."""
    _given_up: Event = field(default_factory=Event)
    """Whether a checkpoint that is not complete will never be."""
    _covered: bool = False
    """Whether the method's states were found to hold all that it keeps."""
    _patience: float = inf
    """Until when its files may still appear, on the clock of time.monotonic()."""

    def keep_start(self, network: Network) -> None:
        """The start model as rank 0 has it, which warmed it up."""
        if self.every:
            states = {"network": {"network": network_state(network)}} if self.world.is_server else {}
            self._begin(0, states)
            self.settle()

    def after_round(self, f: Federation, round: int) -> None:
        """Take a checkpoint where one is due; end the run with exit code 75 where a rank was asked to stop."""
        with f.clock("wait"):
            pause = self.world.any_rank(self.asked())
        due = self._is_due(round) or (pause and self.every > 0)
        with f.clock("checkpoint"):
            self.settle(free_space=due)
        if due:
            with f.clock("wait"):
                seconds = self.world.gather_json(f.clock.spent())
            with f.clock("checkpoint"):
                if self.thorough or not self._covered:
                    with self.world.verdict():
                        network = f.initial_model.network
                        coverage.check(f.clients.made().values(), f.server, network, thorough=self.thorough)
                    self._covered = True
                states = _states(f, round, seconds, self.store.last_round if self.world.is_server else 0)
                if f.any_searched and (found := searches.gather(self.world, f, round)) is not None:
                    states[searches.NAME] = found
                self._begin(round, states, release=f.release if f.at_once else None)
                f.changed.clear()
                f.any_searched = False
                if self.at_once or f.at_once:
                    self.settle()
        if pause:
            self._leave(f"after round {round}")

    def in_round(self, f: Federation, round: int) -> None:
        """After local training, which ends early where a rank was asked to stop: keep how far it came, and end the run."""
        if not self.world.any_rank(self.asked()):
            if self.world.is_server and self._is_due(round) and self._clearing.idle:  # else of the wave before
                self._clearing.start(self.store.free_space)
            return
        self.settle()
        done = round - 1
        if self._is_due(done):
            with self.world.verdict():
                states = _learning(f)
            if self.world.is_server:
                states["interruptions"] = _interruptions(f)
            self._begin(done, states, learning=True, release=f.release if f.at_once else None)
        self._leave(f"in round {round}")

    def newest(self) -> Checkpoint | None:
        """What the run goes on from; None where it begins. What an interrupted write has left is removed."""
        self._given_up.set()
        with suppress(InputError):
            self._writing.finish()
        with suppress(InputError):
            self._completing.finish()
        with suppress(InputError):
            self._clearing.finish()
        self._given_up.clear()
        self._pending = False
        self.world.barrier()
        with self.world.verdict():
            if self.world.is_server:
                self.store.clear()
            return self.store.newest()

    def lost(self, checkpoint: Checkpoint) -> dict[int, int]:
        """The clients that were lost, and the first round without them. Raises InputError where this cannot be read."""
        interruptions = self._interruptions(checkpoint)
        return dict(interruptions["lost"]) if interruptions is not None else {}

    def _interruptions(self, checkpoint: Checkpoint) -> State | None:
        """The interruptions of the run up to its newest checkpoint."""
        if self.store.was_learning(checkpoint.round):
            return self.store.at(checkpoint.round, learning=True).read("interruptions")
        return checkpoint.read("interruptions")

    def restore(self, f: Federation, checkpoint: Checkpoint) -> None:
        """Bring a federation that was just assembled to where the checkpoint's was."""
        with self.world.verdict():
            found = searches.read(checkpoint)
            for client in f.clients:
                state = checkpoint.read(_name(client))
                if state is not None:
                    if searches.bring_up_to_date(state, client, found):
                        f.searched.add(client)
                    f.restore_client(client, state)
                    f.put_away()
            if self.store.was_learning(checkpoint.round) and self.lost(checkpoint) == f.schedule.lost:
                learning = self.store.at(checkpoint.round, learning=True)
                for client in f.clients:  # also those that had begun their first round, of whom there is nothing else
                    if _name(client) in learning.notes:
                        f.clients[client].learner.interrupted = partial(learning.read, _name(client))
            progress = checkpoint.read("progress")
            if progress is not None:
                f.initial_model.met.update(progress["met"])
                f.clock.seconds.update(progress["seconds"])
                f.exchange.moved = progress["moved"]
            if f.server is not None and progress is not None:
                server = checkpoint.read("server")
                assert server is not None
                f.server.restore(server, partial(_theta, f.server, checkpoint))
            if f.exchange.is_server:
                for name in checkpoint.names("history-"):
                    history = checkpoint.read(name)
                    assert history is not None
                    f.exchange.ledger.restore(history["ledger"])
                    f.observer.restore(history["observer"])
            if f.exchange.is_server and (interruptions := self._interruptions(checkpoint)) is not None:
                f.events[:] = interruptions["events"]

    def settle(self, *, free_space: bool = False) -> None:
        """Wait until the checkpoint that was begun last, if any, is complete; free disk space for the next one."""
        try:
            if self._pending:
                with self.world.verdict():
                    self._writing.finish()
                self._patience = time.monotonic() + APPEARS
            if self._pending or free_space:
                with self.world.verdict():
                    self._clearing.finish()
                    self._completing.finish()
                    if self.world.is_server and free_space:
                        self.store.free_space()
        except BaseException:
            self._given_up.set()  # else rank 0 would wait for files that never come
            raise
        self._pending = False

    def _is_due(self, round: int) -> bool:
        return self.every > 0 and round % self.every == 0

    def _begin(
        self,
        round: int,
        states: dict[str, State],
        *,
        learning: bool = False,
        release: Callable[[], None] | None = None,
    ) -> None:
        """Copy the states and begin to write them.

        release: where copies of all would be too many, what is called after each; then they are made one after the other as
        they are written, to which `settle` has to wait.
        """
        self._pending = True
        one_by_one = _copies(states, release or (lambda: None))
        snapshots = list(one_by_one) if release is None else one_by_one
        rank, ranks, self._patience = self.world.rank, self.world.size, inf

        def given_up() -> bool:
            return self._given_up.is_set() or time.monotonic() > self._patience

        self._writing.start(lambda: self.store.write(rank, round, snapshots, learning=learning))
        if self.world.is_server:
            self._completing.start(lambda: self.store.commit(ranks, round, learning=learning, given_up=given_up))

    def _leave(self, when: str) -> None:
        self.settle()
        if self.world.is_server:
            how = "go on with --resume" if self.every else "nothing was kept, as checkpoint.every is 0"
            say(
                f"asked to stop, and stopped {when}; {how}. Expected: exit code {PAUSED}, and a launcher that complains of it"
            )
        raise OrderlyEnd(PAUSED)


def _copies(states: dict[str, State], release: Callable[[], None]) -> Iterator[tuple[str, Snapshot]]:
    for name, state in states.items():
        yield name, files.copy(state)
        release()


def _states(f: Federation, round: int, seconds: list[dict[str, float]] | None, last: int) -> dict[str, State]:
    """Name of a file -> the state that this rank writes to it: of what has changed since the checkpoint after round `last`."""
    states: dict[str, State] = {
        _name(client): f.client_state(client) | {"round": round}
        for client, side in f.clients.made().items()
        if side.learner.draws and client in f.changed
    }
    server = f.server.state() if f.server is not None else None  # collective where ranks share it
    if server is not None and seconds is not None:
        states["server"] = server
        states["progress"] = {
            "met": sorted(f.initial_model.met),
            "moved": f.exchange.moved,
            "seconds": _mean(seconds),
        }
        states[f"history-{last:09d}"] = {"ledger": f.exchange.ledger.state(last), "observer": f.observer.state(last)}
        states["interruptions"] = _interruptions(f)
    return states


def _learning(f: Federation) -> dict[str, State]:
    """Name of a file -> how far a client of this rank has come in its round; had it kept something before a pause and was not
    reached since, that. Raises InputError where this cannot be read."""
    found: dict[str, State] = {}
    for client, side in f.clients.made().items():
        learner = side.learner
        if learner.training is not None:
            found[_name(client)] = learner.training.state()
        elif learner.interrupted is not None and (kept := learner.interrupted()) is not None:
            found[_name(client)] = kept
    return found


def _interruptions(f: Federation) -> State:
    return {"lost": [[client, round] for client, round in f.schedule.lost.items()], "events": f.events}


def _mean(seconds: list[dict[str, float]]) -> dict[str, float]:
    """Mean seconds of the ranks, by activity: what every rank's clock goes on from, on whatever number of ranks."""
    activities = {activity: None for of_rank in seconds for activity in of_rank}
    return {activity: sum(of_rank.get(activity, 0.0) for of_rank in seconds) / len(seconds) for activity in activities}


def _theta(server: Server, checkpoint: Checkpoint, client: int) -> Tensor:
    """A client's travelling weights as the server knew them, float32 [P]."""
    state: dict[str, Any] | None = checkpoint.read(_name(client))
    if state is None:  # it was never drawn
        return server.setup.start
    with torch.no_grad():
        return server_knows(state["learner"], server.setup.layout)


def _name(client: int) -> str:
    return f"client-{client}"
