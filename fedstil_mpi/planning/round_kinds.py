"""What rounds cost by what is new in them."""

from collections.abc import Sequence
from typing import NamedTuple

from fedstil_mpi.comm.ledger import DOWN, UP
from fedstil_mpi.federation.observer import Observer
from fedstil_mpi.federation.state import Federation


class Group(NamedTuple):
    """Rounds that are alike, and what all clients get (down) and send (up) in them together, in bytes."""

    name: str
    rounds: int
    visits: int
    """How often a client takes part, over all these rounds."""
    down: int
    up: int


class RoundKinds(Observer):
    """Sorts the rounds of a run, and the distribution after the last; together they are the whole ledger."""

    NAMES = ("first contact", "a task begins", "other rounds", "no exchange", "closing")

    def __init__(self, f: Federation):
        """f: all clients, in this process."""
        self._f = f
        self._groups = {name: Group(name, 0, 0, 0, 0) for name in self.NAMES}

    def end_round(self, round: int, online: Sequence[int]) -> None:
        learners = [self._f.clients[client].learner for client in online]
        new = any(learner.draws == 1 for learner in learners)
        begins = any(learner.task_is_new for learner in learners)
        name = "first contact" if new else "a task begins" if begins else "other rounds"
        schedule = self._f.schedule
        exchanges = schedule.receivers(round) or schedule.senders(round)
        self._add(name if exchanges else "no exchange", round, len(online))

    def end(self) -> None:
        met = sum(side.learner.draws > 0 for side in self._f.clients.made().values())
        self._add("closing", self._f.schedule.total + 1, met)

    def _add(self, name: str, round: int, visits: int) -> None:
        group, ledger = self._groups[name], self._f.exchange.ledger
        down, up = ledger.total(DOWN, round), ledger.total(UP, round)
        self._groups[name] = Group(name, group.rounds + 1, group.visits + visits, group.down + down, group.up + up)

    def groups(self) -> list[Group]:
        """Those that there were."""
        return [group for group in self._groups.values() if group.rounds]
