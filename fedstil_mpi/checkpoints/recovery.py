"""One attempt at a run: from its newest checkpoint to its last round, on the ranks that are there.

A run that was interrupted goes on in such an attempt, and so does one that has lost ranks.
"""

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from fedstil_mpi.checkpoints.manager import CheckpointManager
from fedstil_mpi.comm.failures import OrderlyEnd
from fedstil_mpi.comm.world import World
from fedstil_mpi.federation import rounds, setup
from fedstil_mpi.federation.rounds import Federation
from fedstil_mpi.federation.setup import Plan
from fedstil_mpi.federation.shared_resources import SharedResources, reassign_clients
from fedstil_mpi.planning.resident import measure
from fedstil_mpi.results.writing import models
from fedstil_mpi.results.writing.record import LOST, RESUMED
from fedstil_mpi.results.writing.run_folder import path_of
from fedstil_mpi.results.writing.run_output import Report
from fedstil_mpi.util.terminal import say

LOSSES = 3
"""So often may a round be lost before the job ends."""


@dataclass(frozen=True)
class Outcome:
    """What a finished run leaves to report, on rank 0; elsewhere the lists are empty."""

    plan: Plan
    """With the clients that were lost."""
    seconds: list[dict[str, float]]
    """By rank and activity."""
    fingerprints: list[str]
    """By client."""
    measured: list[dict[str, Any]]
    """By rank, `resident.measure`."""


@dataclass
class Attempts:
    """The attempts at a run, as one rank sees them."""

    world: World
    resources: SharedResources
    plan: Plan
    checkpoints: CheckpointManager
    output: Report | None
    """On rank 0; elsewhere None."""
    libraries: int
    """Bytes of the process before any work."""
    before: float
    """Seconds that went into the run before the first attempt."""
    lost: dict[int, int] = field(default_factory=dict)
    """Client -> the first round without it."""
    losses: Counter[int] = field(default_factory=Counter)
    """By the last round that was finished, how often ranks were lost after it. Kept on rank 0."""

    def make(self) -> Outcome:
        """One attempt. Collective: all ranks must call."""
        began = time.perf_counter()
        self.world.where.clear()  # where an attempt was that was broken off
        world, resources, checkpoints = self.world, self.resources, self.checkpoints
        checkpoint = checkpoints.newest(world)
        done = checkpoint.round if checkpoint is not None else 0
        with world.verdict():
            start = checkpoints.store.at(0) if checkpoint is not None else None
            self.lost |= checkpoints.lost(checkpoint) if checkpoint is not None else {}
        if not self.settle_losses(done):
            began -= self.before
            if checkpoint is not None and self.output is not None:
                self.output.tell({"event": RESUMED, "after_round": done, "ranks": world.size})
        plan = replace(self.plan, schedule=replace(self.plan.schedule, lost=self.lost))
        setup.load_data_and_model(world, plan, resources, start)
        parts = setup.assemble(world, plan, resources)
        with world.verdict():
            if self.output is not None and resources.placements is not None:
                self.output.begin(parts, resources.placements, done)
        if checkpoint is None:
            checkpoints.keep_start(world, parts.contact.network)
        else:
            checkpoints.restore(parts, checkpoint)
        if self.output is not None:
            self.output.remember()
        parts.clock.seconds["set-up"] += time.perf_counter() - began
        with world.deadline(plan.experiment.exchange.timeout):
            rounds.run_rounds(parts, checkpoints, done)
        return self.finish(plan, parts)

    def settle_losses(self, done: int) -> bool:
        """Note what becomes of the clients of ranks that have died since the last attempt; returns whether any have.

        Rank 0 decides, for another rank may have been stopped half-way. done: the last round that was finished.
        """
        dead = [
            placement for placement in self.resources.placements or () if placement["rank"] not in self.world.launched
        ]
        orphans = [client for placement in dead for client in placement["clients"] if client not in self.lost]
        if self.plan.experiment.lost_clients == "offline":
            self.lost |= dict.fromkeys(orphans, done + 1)
        self.losses[done] += bool(dead)
        any_dead, lost, end = self.world.broadcast_json([bool(dead), list(self.lost.items()), self._end(done)])
        self.lost = dict(lost)
        if end is not None:
            if self.output is not None:
                names = ", ".join(f"rank {placement['rank']} on {placement['host']}" for placement in dead)
                say(f"{names} was lost in round {done + 1}; {end}; go on with --resume")
            raise OrderlyEnd(1)
        if any_dead:
            reassign_clients(self.world, self.resources)
        if self.output is not None:
            self._tell(dead, orphans, done + 1)
        return any_dead

    def _end(self, done: int) -> str | None:
        """Why the run cannot go on; None where it can. On rank 0."""
        if self.losses[done] == LOSSES:
            return f"ranks were lost in this round {LOSSES} times"
        return "no client is left" if len(self.lost) == self.plan.schedule.clients else None

    def _tell(self, dead: list[dict[str, Any]], orphans: list[int], round: int) -> None:
        """On rank 0."""
        assert self.output is not None
        adopters = {
            client: placement["rank"]
            for placement in self.resources.placements or ()
            for client in placement["clients"]
        }
        for placement in dead:
            clients = [client for client in placement["clients"] if client in orphans]
            adopted = [adopters[client] for client in clients if client not in self.lost]
            where = {"round": round, "rank": placement["rank"], "host": placement["host"]}
            self.output.tell({"event": LOST, **where, "clients": clients, "adopted_by": adopted or None})

    def finish(self, plan: Plan, parts: Federation) -> Outcome:
        """After the last round. Collective: all ranks must call."""
        self.checkpoints.settle(self.world)
        world, learners = self.world, [side.learner for side in parts.clients.values()]
        with world.verdict():
            if plan.experiment.save_models:
                tails = {learner.client: learner.tail for learner in learners if learner.draws}
                models.save_models(
                    path_of(plan.experiment), tails, parts.contact.network.stem if world.is_server else None
                )
        seconds = world.gather_json(parts.clock.seconds) or []
        fingerprints = world.gather_json([learner.fingerprint() for learner in learners]) or []
        measured = world.gather_json(measure(learners, self.libraries)) or []
        return Outcome(plan, seconds, list(chain.from_iterable(fingerprints)), measured)
