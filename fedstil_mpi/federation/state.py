"""Everything that takes part in a run, as one rank sees it."""

from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedstil_mpi.comm.exchange import Exchange
from fedstil_mpi.evaluation.scopes import Scopes
from fedstil_mpi.federation.balance import Dealing
from fedstil_mpi.federation.initial_model import InitialModel
from fedstil_mpi.federation.observer import Observer
from fedstil_mpi.federation.roster import Roster
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.federation.trainer import LocalTrainer
from fedstil_mpi.federation.waves import portions
from fedstil_mpi.launch.allocator import return_freed_memory
from fedstil_mpi.methods.base import Client, Server, Traffic, restore
from fedstil_mpi.util.clock import Clock
from fedstil_mpi.util.shelf import Compartment, Shelf
from fedstil_mpi.util.state_tree import State

RESUMED, LOST = "resumed", "rank lost"
"""Kinds of `Federation.events`."""


def nowhere(**place: Any) -> None:
    """Notes nothing: the default of `Federation.at`."""


def stay(round: int) -> None:
    """Each client on the rank that has it: the default of `Federation.take_places`."""


@dataclass
class Federation:
    schedule: Schedule
    exchange: Exchange
    trainer: LocalTrainer
    initial_model: InitialModel
    traffic: Traffic
    scopes: Scopes
    """Where queries are searched, and whose."""
    clients: Roster[Client]
    """This rank's clients."""
    server: Server | None
    """On rank 0, or its columns on every rank (`methods.columns`); elsewhere None."""
    task_aware: bool = False
    """Whether the method searches each task with a model of its own."""
    models: Path | None = None
    """The run folder, where models are kept; None: they are not."""
    observer: Observer = field(default_factory=Observer)
    """Called on rank 0 with what happens."""
    events: list[dict[str, Any]] = field(default_factory=list)
    """The interruptions of the run so far, in order: that it was resumed, that a rank was lost. Kept on rank 0."""
    clock: Clock = field(default_factory=Clock)
    verdict: Callable[[], AbstractContextManager[None]] = nullcontext
    """An InputError in it on any rank ends the run on all (`World.verdict`)."""
    at: Callable[..., None] = nowhere
    """Notes what this rank is doing (`World.at`), for the message should it fail."""
    found: dict[int, dict[bool, np.ndarray]] = field(default_factory=dict)
    """This rank's client -> by task or not -> what its model found, float64 [scopes, tasks, METRICS], as long as it is the same."""
    changed: set[int] = field(default_factory=set)
    """This rank's clients whose states are no longer those of the newest checkpoint."""
    searched: set[int] = field(default_factory=set)
    """Of the others those that were searched since their states were written: only `search_state` differs."""
    any_searched: bool = False
    """Whether there was a search since the newest checkpoint; the same on all ranks."""
    dealing: Dealing | None = None
    """Who plays whom in a run; None: all clients are in this process."""
    take_places: Callable[[int], None] = stay
    """Brings the online clients of a round to the ranks that play them in it (`federation.moving`). Collective."""
    shelf: Shelf[tuple[int, Hashable]] | None = None
    """Where models of clients lie that are away; None: they stay in memory."""
    compartments: dict[int, Compartment] = field(default_factory=dict)
    """Of the shelf, by client, of those that were away."""
    settled: int = 0
    """Bytes of this process when freed memory was last given back."""
    in_memory: set[int] = field(default_factory=set)
    """This rank's clients whose models are in memory, not on the shelf."""
    at_once: int | None = None
    """How many online clients have their models in memory at a time, where more are online (`federation.waves`); None: all."""
    told_at_once: int = 1
    """How many clients the server tells at once what it knows in the end."""

    def change(self, client: int) -> None:
        """Note that a client of this rank takes part in something, and may have another model from now on.

        What was read of others before counts as memory no more: only one client's model is on its way at a time.
        """
        self.release()
        self.changed.add(client)
        self.searched.discard(client)
        if self.shelf is not None:
            self.in_memory.add(client)
        self.found.pop(client, None)

    def note_search(self, client: int) -> None:
        """Note that a client of this rank is searched, which leaves its model as it is."""
        if client not in self.changed:
            self.searched.add(client)

    def put_away(self, staying: Collection[int] = ()) -> None:
        """Bring the models of this rank's clients but those `staying` to the shelf, where there is one, and what is freed to the system."""
        if self.shelf is not None:
            for client in self.in_memory.difference(staying):
                self.clients[client].put_away(self.compartments.setdefault(client, Compartment(self.shelf, client)))
                self.in_memory.remove(client)
            self.release()
        self.settled = return_freed_memory(self.settled)

    def waves(self, clients: Sequence[int]) -> Iterator[list[int]]:
        """Portions of the clients whose models are in memory together, mostly a single one. Of several each has clients of all ranks,
        and goes to the shelf before the next; the ledger enters them as one."""
        rank_of = self.exchange.rank_of
        by_rank = sorted(clients, key=lambda client: (rank_of.get(client, 0), client))
        waves = [sorted(wave) for wave in portions(by_rank, self.at_once)]
        if len(waves) == 1:
            yield from waves
            return
        with self.exchange.ledger.together():
            for wave in waves:
                yield wave
                self.put_away()

    def release(self) -> None:
        """Let what was read from the shelf count as this process's memory no more."""
        if self.shelf is not None:
            self.shelf.release()

    def client_state(self, client: int) -> State:
        """What a client of this rank goes on from after a round."""
        side = self.clients[client]
        return {"learner": side.learner.state(), "method": side.state(), "found": self._found(client)}

    def search_state(self, client: int) -> State:
        """Of such a state what searches change, as plain values."""
        return {"learner": self.clients[client].learner.counted_state(), "found": self._found(client)}

    def _found(self, client: int) -> State:
        return {str(int(by_task)): found.tolist() for by_task, found in self.found.get(client, {}).items()}

    def restore_client(self, client: int, state: State) -> None:
        """Take up such a state in a client just created, whose model is in memory then."""
        restore(self.clients[client], state)
        self.found[client] = {bool(int(by_task)): np.array(found) for by_task, found in state["found"].items()}
        self.in_memory.add(client)

    def forget(self, client: int) -> None:
        """A client that another rank has from now on."""
        for of_rank in (self.changed, self.searched, self.in_memory):
            of_rank.discard(client)
        self.found.pop(client, None)
        if compartment := self.compartments.pop(client, None):
            compartment.clear()
