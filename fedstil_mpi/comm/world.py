"""The ranks of a run: which they are, whether they are all there, and whether all is well."""

import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from fedstil_mpi.comm.collectives import Collectives
from fedstil_mpi.comm.failures import GivenUp, OrderlyEnd, RankLost
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.terminal import say

if TYPE_CHECKING:
    from mpi4py import MPI

PLACES = ("client", "task", "round")
"""The order in which a failure names where it happened; other names follow."""
PATIENCE = 2.0
"""Seconds in which the death behind an error becomes known."""


class World(Collectives):
    """All ranks of the run, seen from this one. Creating it is collective: all ranks must do so."""

    def __init__(self, all_ranks: "MPI.Comm", same_host: "MPI.Comm", *, ulfm: bool = False):
        """`same_host`: the ranks that share memory with this one, in the order of `all_ranks`."""
        super().__init__(all_ranks, all_ranks.Dup() if ulfm else None)
        self.ulfm = ulfm
        """Whether the job was started so that ranks can outlive others (User Level Failure Mitigation)."""
        self.outlived = False
        """Whether the others go on if this rank fails; see `survival.survive`."""
        self.where: dict[str, int | str] = {}
        self.host = platform.node()
        first = np.array([all_ranks.rank])
        same_host.Bcast(first, root=0)
        self.node = int(first[0])
        """The lowest rank on the same host: names the node even where two nodes report the same host name."""
        self.library = library()
        """What MPI's library calls itself, in one line."""
        self.nodes = np.empty(all_ranks.size, first.dtype)
        """One entry for each rank that the job was started with."""
        all_ranks.Allgather(first, self.nodes)
        self.take(all_ranks, range(all_ranks.size))
        self.hosts: list[str] = self.broadcast_json(self.gather_json(self.host))
        """One entry for each rank that the job was started with."""

    def take(self, comm: "MPI.Comm", launched: Sequence[int]) -> None:
        """Consist of this communicator's ranks from now on. Not collective.

        launched: each rank's number when the job was started, by which messages name it.
        """
        from mpi4py import MPI

        comm.Set_errhandler(MPI.ERRORS_RETURN)
        self.comm = comm
        self.comms = [comm]
        """This one and its duplicates."""
        self.rank, self.size = comm.rank, comm.size
        self.launched = tuple(launched)
        self.is_server = self.rank == 0
        neighbours = [rank for rank, start in enumerate(launched) if self.nodes[start] == self.node]
        self.local_rank = neighbours.index(self.rank)

    def duplicate(self, name: str) -> "MPI.Comm":
        """A communicator of the same ranks, whose messages do not mix with this one's. Collective: all ranks must call."""
        from mpi4py import MPI

        comm, request = self.comm.Idup()
        self.wait(request)
        comm.Set_name(name)
        comm.Set_errhandler(MPI.ERRORS_RETURN)
        self.comms.append(comm)
        return comm

    def free(self, comm: "MPI.Comm") -> None:
        """Give a duplicate back when nothing is under way on it. Collective: all ranks must call."""
        if comm in self.comms:  # else it belongs to a world of which some ranks have died
            self.comms.remove(comm)
            comm.Free()

    def at(self, **place: int | str | None) -> None:
        """Note what this rank is doing, for example `at(round=3, client=1)`; None forgets a name. Not collective."""
        known = {**self.where, **place}
        names = [*(name for name in PLACES if name in known), *(name for name in known if name not in PLACES)]
        self.where = {name: value for name in names if (value := known[name]) is not None}

    def check(self) -> None:
        """Raise RankLost where a rank is known to have died, GivenUp where the job is; only with `ulfm`. Not collective."""
        if self.over is None:
            return
        if self.is_broken():
            raise RankLost
        if self.over.Is_revoked():
            raise GivenUp

    def is_broken(self) -> bool:
        """Whether a rank of this world is known to have died; only with `ulfm`. Not collective."""
        from mpi4py import MPI

        try:
            self.comm.Iprobe()  # lets MPI take note of deaths
        except MPI.Exception:
            return True
        return self.comm.Is_revoked() or self.comm.Get_failed().Get_size() > 0

    def is_loss(self, error: BaseException) -> bool:
        """Whether an error means that a rank has died, which may be known a moment later only. Not collective."""
        from mpi4py import MPI

        if not self.ulfm or not isinstance(error, RankLost | MPI.Exception):
            return False
        end = time.monotonic() + PATIENCE
        while not self.is_broken() and time.monotonic() < end:
            time.sleep(0.01)
        return self.is_broken()

    @contextmanager
    def verdict(self) -> Iterator[None]:
        """Check something, on all ranks or on some: an InputError on any rank ends the run on all of them.

        Rank 0 prints each distinct message once, as one line; MPI is finalised and the exit code is the lowest of theirs.
        Collective: all ranks must enter, and in the block no rank may raise before a collective that others call in it.
        """
        found = None
        try:
            yield
        except InputError as error:
            found = [str(error), error.code]
        if self.any_rank(found is not None):
            everyone = self.broadcast_json(self.gather_json(found))  # nobody leaves before rank 0 knows them all
            errors = dict(one for one in everyone if one is not None)
            if self.rank == 0:
                for line in errors:
                    say(line)
            raise OrderlyEnd(min(errors.values()))


def library() -> str:
    """What MPI's library calls itself: "Open MPI v5.0.11, ..."."""
    from mpi4py import MPI

    return " ".join(MPI.Get_library_version().replace("\0", "").split())
