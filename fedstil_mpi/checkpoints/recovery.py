"""A run from its newest checkpoint to its last round, on the ranks that are there.

A run that was interrupted goes on like this, and so does one that has lost ranks: each time is an attempt.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from fedstil_mpi.checkpoints.manager import CheckpointManager
from fedstil_mpi.comm.failures import OrderlyEnd
from fedstil_mpi.comm.survival import survive
from fedstil_mpi.comm.world import World
from fedstil_mpi.federation.observer import Observer
from fedstil_mpi.federation.plan import Plan
from fedstil_mpi.federation.rounds import run_rounds
from fedstil_mpi.federation.setup import assemble, load_data_and_model
from fedstil_mpi.federation.shared_resources import SharedResources, reassign_clients
from fedstil_mpi.federation.state import LOST, RESUMED, Federation
from fedstil_mpi.util.clock import Moment
from fedstil_mpi.util.garbage import settled
from fedstil_mpi.util.terminal import say

LOSSES = 3
"""How often ranks may be lost in one round before the job ends."""

T = TypeVar("T")


class Output(Protocol):
    """What a user gets of a run, on rank 0."""

    def stage(self, what: str) -> None:
        """A part of the set-up begins."""

    def begin(self, f: Federation, placements: list[dict[str, Any]], done: int) -> Observer:
        """An attempt begins after `done` rounds; returns what observes it. Raises InputError where nothing can be written."""

    def show_event(self, event: dict[str, Any]) -> None:
        """Print an interruption of the run."""


def run_with_recovery(
    world: World,
    resources: SharedResources,
    plan: Plan,
    checkpoints: CheckpointManager,
    output: Output | None,
    finish: Callable[[Plan, Federation], T],
    began: Moment,
) -> T:
    """Run all rounds, going back to the last checkpoint when ranks are lost. Collective: all ranks must call.

    output: on rank 0, elsewhere None. finish: what is left to do after the last round, with the plan as it has become
    (without lost clients) and the federation; collective. began: when this process began with the run.
    """
    recovery = Recovery(world, resources, plan, checkpoints, output, began)

    def attempt() -> T:
        plan, f = recovery.attempt()
        checkpoints.settle()
        result = finish(plan, f)
        f.exchange.close()
        return result

    return survive(world, attempt) if plan.experiment.fault_tolerance else attempt()


@dataclass
class Recovery:
    """What outlives an attempt, as one rank sees it."""

    world: World
    resources: SharedResources
    plan: Plan
    checkpoints: CheckpointManager
    output: Output | None
    """On rank 0; elsewhere None."""
    began: Moment
    """When this process began with the run."""
    lost: dict[int, int] = field(default_factory=dict)
    """Client -> the first round without it."""
    losses: Counter[int] = field(default_factory=Counter)
    """Last finished round -> how often ranks were lost after it. Kept on rank 0."""
    events: list[dict[str, Any]] = field(default_factory=list)
    """The interruptions that this process has seen. Kept on rank 0."""
    before: int | None = None
    """How many there had been before it; None: it has not looked yet."""

    def attempt(self) -> tuple[Plan, Federation]:
        """Run what is left. Collective: all ranks must call."""
        began = Moment.now()
        self.world.where.clear()  # where an attempt was that was broken off
        world, resources, checkpoints = self.world, self.resources, self.checkpoints
        checkpoint = checkpoints.newest()
        done = checkpoint.round if checkpoint is not None else 0
        with world.verdict():
            start = checkpoints.store.at(0) if checkpoint is not None else None
            self.lost |= checkpoints.lost(checkpoint) if checkpoint is not None else {}
        if not self.settle_losses(done):
            began = self.began
            if checkpoint is not None:
                self._report({"event": RESUMED, "after_round": done, "ranks": world.size})
        plan = replace(self.plan, schedule=replace(self.plan.schedule, lost=self.lost))
        load_data_and_model(world, plan, resources, start, self._stage)
        f = assemble(world, plan, resources)
        if done < plan.schedule.total:
            f.take_places(done + 1)  # where a round goes on that was interrupted, each with who had begun it
        with world.verdict():
            if self.output is not None and resources.placements is not None:
                f.observer = self.output.begin(f, resources.placements, done)
        if checkpoint is None:
            checkpoints.keep_start(f.initial_model.network)
        else:
            checkpoints.restore(f, checkpoint)
        if self.before is None:
            self.before = len(f.events)
        f.events[:] = [*f.events[: self.before], *self.events]
        f.clock.end_set_up(began)
        with world.deadline(plan.experiment.exchange.timeout), settled():
            run_rounds(f, checkpoints, done)
        return plan, f

    def settle_losses(self, done: int) -> bool:
        """Record what happens to the clients of ranks that died since the last attempt; returns whether any have.

        Rank 0 decides, for another rank may have been stopped half-way. done: the last round that was finished.
        """
        dead = [row for row in self.resources.placements or () if row["rank"] not in self.world.launched]
        orphans = [client for row in dead for client in row["clients"] if client not in self.lost]
        if self.plan.experiment.lost_clients == "offline":
            self.lost |= dict.fromkeys(orphans, done + 1)
        self.losses[done] += bool(dead)
        any_dead, lost, end = self.world.broadcast_json([bool(dead), list(self.lost.items()), self._end(done)])
        self.lost = dict(lost)
        if end is not None:
            if self.world.is_server:
                names = ", ".join(f"rank {row['rank']} on {row['host']}" for row in dead)
                say(f"{names} was lost in round {done + 1}; {end}; go on with --resume")
            raise OrderlyEnd(1)
        if any_dead:
            reassign_clients(self.world, self.resources)
        self._report_losses(dead, orphans, done + 1)
        return any_dead

    def _end(self, done: int) -> str | None:
        """Why the run cannot go on; None where it can. On rank 0."""
        if self.losses[done] == LOSSES:
            return f"ranks were lost in this round {LOSSES} times"
        return "no client is left" if len(self.lost) == self.plan.schedule.clients else None

    def _report_losses(self, dead: list[dict[str, Any]], orphans: list[int], round: int) -> None:
        """dead: placements as they were; on other ranks than 0 there are none."""
        rows = self.resources.placements or ()
        adopters = {client: row["rank"] for row in rows for client in row["clients"]}
        for row in dead:
            clients = [client for client in row["clients"] if client in orphans]
            adopted = [adopters[client] for client in clients if client not in self.lost]
            where = {"round": round, "rank": row["rank"], "host": row["host"]}
            self._report({"event": LOST, **where, "clients": clients, "adopted_by": adopted or None})

    def _stage(self, what: str) -> None:
        if self.output is not None:
            self.output.stage(what)

    def _report(self, event: dict[str, Any]) -> None:
        if self.output is not None:
            self.events.append(event)
            self.output.show_event(event)
