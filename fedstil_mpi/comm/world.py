"""The ranks of a run: starting MPI, agreeing whether all is well, and small plain data from and to rank 0.

MPI is imported only when `start` is entered, after its settings are in the environment.
"""

import json
import math
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from fedstil_mpi.comm.guard import GivenUp, OrderlyEnd, Overdue, RankLost, abort_on_error
from fedstil_mpi.util.errors import INPUT_ERROR, InputError
from fedstil_mpi.util.terminal import say

if TYPE_CHECKING:
    from mpi4py import MPI

PLACES = ("client", "task", "round")
"""The order in which a failure names where it happened; other names follow."""


SET_UP = 3600.0
"""Seconds that a rank waits for the others where no round's limit holds: one may be warming up the model."""


class World:
    """All ranks of the run, seen from this one. Creating it is collective: all ranks must do so."""

    def __init__(self, all_ranks: "MPI.Comm", same_host: "MPI.Comm", *, ulfm: bool = False):
        """`same_host`: the ranks that share memory with this one, in the order of `all_ranks`."""
        self.ulfm = ulfm
        """Whether the job was started so that ranks can outlive others (User Level Failure Mitigation)."""
        self.outlived = False
        """Whether the others go on if this rank fails; see `survival.survive`."""
        self.over = all_ranks.Dup() if ulfm else None
        """Revoked when the job is given up."""
        self.timeout: float | None = SET_UP
        """Seconds that a rank waits for the others; None: no limit."""
        self.where: dict[str, int | str] = {}
        self.host = platform.node()
        self._cut_short: list[MPI.Request] = []
        """What was waited for in vain: MPI may still write to the buffers that these hold."""
        first = np.array([all_ranks.rank])
        same_host.Bcast(first, root=0)
        self.node = int(first[0])
        """The lowest rank on the same host: names the node even where two nodes report the same host name."""
        self.nodes = np.empty(all_ranks.size, first.dtype)
        """By rank as the job was started."""
        all_ranks.Allgather(first, self.nodes)
        self.take(all_ranks, range(all_ranks.size))
        self.hosts: list[str] = self.broadcast_json(self.gather_json(self.host))
        """By rank as the job was started."""

    def take(self, comm: "MPI.Comm", launched: Sequence[int]) -> None:
        """Consist of this communicator's ranks from now on. Not collective.

        launched: by rank, what it was as the job was started, by which messages name it.
        """
        from mpi4py import MPI

        comm.Set_errhandler(MPI.ERRORS_RETURN)
        self.comm = comm
        self.comms = [comm]
        """This one and its duplicates."""
        self.rank: int = comm.rank
        self.size: int = comm.size
        self.launched = tuple(launched)
        self.is_server = self.rank == 0
        neighbours = [rank for rank, start in enumerate(launched) if self.nodes[start] == self.node]
        self.local_rank = neighbours.index(self.rank)
        self.local_size = len(neighbours)

    def duplicate(self, name: str) -> "MPI.Comm":
        """A communicator of the same ranks, so that other messages can be told apart. Collective: all ranks must call."""
        from mpi4py import MPI

        comm, request = self.comm.Idup()
        self.wait(request)
        comm.Set_name(name)
        comm.Set_errhandler(MPI.ERRORS_RETURN)
        self.comms.append(comm)
        return comm

    def at(self, **place: int | str | None) -> None:
        """Note what this rank is doing, for example `at(round=3, client=1)`; None forgets a name. Not collective."""
        known = {**self.where, **place}
        names = [*(name for name in PLACES if name in known), *(name for name in known if name not in PLACES)]
        self.where = {name: value for name in names if (value := known[name]) is not None}

    @contextmanager
    def deadline(self, seconds: float | None) -> Iterator[None]:
        """Within the block this rank waits so long for the others, or without limit."""
        before, self.timeout = self.timeout, seconds
        try:
            yield
        finally:
            self.timeout = before

    def wait(self, request: "MPI.Request", what: str = "the other ranks") -> None:
        """Wait for a nonblocking operation, asleep between looks: no MPI library is known to sleep by itself.

        what: is waited for, for the message. Raises Overdue after `timeout` seconds; where a rank has died, RankLost or
        MPI's own exception.
        """
        began, pause = time.monotonic(), 1e-4
        try:
            while not request.Test():
                if self.over is not None and self.over.Is_revoked():
                    raise GivenUp
                if self.timeout is not None and time.monotonic() - began > self.timeout:
                    raise Overdue(
                        f"waited {self.timeout:g} s for {what}; a rank is stopped, cut off or needs longer (exchange.timeout)"
                    )
                time.sleep(pause)
                pause = min(1.5 * pause, 2e-3)
        except BaseException:
            self._cut_short.append(request)
            raise

    def check(self) -> None:
        """Raise RankLost where a rank has died, as far as this one has heard; only with `ulfm`. Not collective."""
        if self.over is None:
            return
        if self.is_broken():
            raise RankLost
        if self.over.Is_revoked():
            raise GivenUp

    def is_broken(self) -> bool:
        """Whether a rank of this world has died, as far as this one has heard; only with `ulfm`. Not collective."""
        from mpi4py import MPI

        try:
            self.comm.Iprobe()  # lets MPI hear news
        except MPI.Exception:
            return True
        return self.comm.Is_revoked() or self.comm.Get_failed().Get_size() > 0

    def is_loss(self, error: BaseException, patience: float = 2.0) -> bool:
        """Whether an error means that a rank has died, of which this one may hear a moment later. Not collective."""
        from mpi4py import MPI

        if not self.ulfm or not isinstance(error, RankLost | MPI.Exception):
            return False
        end = time.monotonic() + patience
        while not self.is_broken() and time.monotonic() < end:
            time.sleep(0.01)
        return self.is_broken()

    def barrier(self) -> None:
        """Wait for all ranks. Collective: all ranks must call."""
        self.wait(self.comm.Ibarrier())

    def agree(self, yes: bool) -> bool:
        """Whether any rank says yes; the same on every rank. Collective: all ranks must call."""
        from mpi4py import MPI

        any_rank = np.empty(1, np.int32)
        self.wait(self.comm.Iallreduce(np.array([yes], np.int32), any_rank, op=MPI.MAX))
        return bool(any_rank[0])

    def broadcast_json(self, value: Any = None) -> Any:
        """What rank 0 gives, as it comes out of JSON, on every rank. Collective: all ranks must call."""
        data = np.frombuffer(json.dumps(value).encode(), np.uint8) if self.rank == 0 else None
        size = np.array([0 if data is None else len(data)])
        self.wait(self.comm.Ibcast(size, root=0), "word from the server")
        buffer = np.empty(size[0], np.uint8) if data is None else data.copy()
        self.wait(self.comm.Ibcast(buffer, root=0), "word from the server")
        return json.loads(buffer.tobytes())

    def gather_json(self, value: Any) -> list[Any] | None:
        """Every rank's value, as it comes out of JSON, in rank order on rank 0; None elsewhere. Collective."""
        gathered, ends = self._gather(np.frombuffer(json.dumps(value).encode(), np.uint8), 1)
        return [json.loads(text.tobytes()) for text in np.split(gathered, ends[:-1])] if self.rank == 0 else None

    def gather_rows(self, rows: np.ndarray) -> np.ndarray | None:
        """The rows [n_r, ...] of every rank, one below the other in rank order, on rank 0; None elsewhere.

        n_r may differ and may be 0; dtype and trailing shape must not differ. Collective: all ranks must call.
        """
        kind = [rows.dtype.str, *rows.shape[1:]]
        found = self.gather_json([len(rows), kind])
        if found is not None:
            _check_kind(found, kind)
        row_bytes = rows.dtype.itemsize * math.prod(rows.shape[1:])
        gathered, _ = self._gather(np.ascontiguousarray(rows).reshape(-1).view(np.uint8), max(row_bytes, 1))
        if found is None:
            return None
        return gathered.view(rows.dtype).reshape(sum(count for count, _ in found), *rows.shape[1:])

    def allgather_rows(self, rows: np.ndarray) -> np.ndarray:
        """What `gather_rows` returns on rank 0, on every rank. Collective: all ranks must call."""
        from mpi4py import MPI

        kind = [rows.dtype.str, *rows.shape[1:]]
        found = self.broadcast_json(self.gather_json([len(rows), kind]))
        _check_kind(found, kind)
        gathered = np.empty((sum(count for count, _ in found), *rows.shape[1:]), rows.dtype)
        if gathered.nbytes:
            counts = np.array([count for count, _ in found])
            row = MPI.BYTE.Create_contiguous(gathered.nbytes // len(gathered)).Commit()
            target = [gathered, counts, counts.cumsum() - counts, row]
            self.wait(self.comm.Iallgatherv([np.ascontiguousarray(rows), len(rows), row], target))
            row.Free()
        return gathered

    def _gather(self, data: np.ndarray, item_bytes: int) -> tuple[np.ndarray, np.ndarray]:
        """Every rank's bytes, uint8 [count * item_bytes], in rank order, and the ends of the ranks' parts in bytes.

        Valid on rank 0. Collective. MPI counts items here, not bytes, because one of its counts ends at 2^31.
        """
        from mpi4py import MPI

        item = MPI.BYTE.Create_contiguous(item_bytes).Commit()
        count = len(data) // item_bytes
        counts = np.zeros(self.size, np.int64)
        self.wait(self.comm.Igather(np.array([count]), counts, root=0))
        ends = np.cumsum(counts)
        gathered = np.empty(ends[-1] * item_bytes, np.uint8)
        self.wait(self.comm.Igatherv([data, count, item], [gathered, counts, ends - counts, item], root=0))
        item.Free()
        return gathered, ends * item_bytes

    @contextmanager
    def verdict(self) -> Iterator[None]:
        """Check something, on all ranks or on some: an InputError on any rank ends the run on all of them.

        Rank 0 prints each distinct message once, as one line; MPI is finalised and the exit code is 2. Collective: all
        ranks must enter, and in the block no rank may raise before a collective that others call in it.
        """
        message = None
        try:
            yield
        except InputError as error:
            message = str(error)
        if self.agree(message is not None):
            messages = self.broadcast_json(self.gather_json(message))  # nobody leaves before rank 0 knows them all
            if self.rank == 0:
                for line in dict.fromkeys(m for m in messages if m is not None):
                    say(line)
            raise OrderlyEnd


def _check_kind(found: list[Any], kind: list[Any]) -> None:
    """found: by rank, how many rows and of which kind (dtype and trailing shape)."""
    if any(other != kind for _, other in found):
        raise ValueError(f"rows of one dtype and trailing shape expected on every rank, found {found}")


@contextmanager
def start() -> Iterator[World]:
    """Start MPI; whatever fails inside the block on any rank ends the job (`abort_on_error`). Collective."""
    prepare_environment()
    try:
        world = _open_world()
    except InputError as error:
        say(str(error))
        raise SystemExit(INPUT_ERROR) from None
    with abort_on_error(world):
        yield world


def prepare_environment() -> None:
    """Let waiting ranks and waiting threads sleep. Before mpi4py and torch are imported; a user's setting wins."""
    settings = {
        "OMPI_MCA_mpi_yield_when_idle": "1",
        "OMPI_MCA_threads_pthreads_yield_strategy": "nanosleep",
        "OMPI_MCA_threads_pthreads_nanosleep_time": "100000",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def _open_world() -> World:
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: mpi4py is there, an MPI library is not
        reason = " ".join(str(error).split())
        raise InputError(
            f"MPI cannot be loaded ({reason}): pip install 'fedstil-mpi[mpi]', or load MPI's module"
        ) from None
    check_launch(MPI.COMM_WORLD.size, os.environ)
    same_host = MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED)
    world = World(MPI.COMM_WORLD.Dup(), same_host, ulfm=has_ulfm(os.environ))
    same_host.Free()
    return world


def has_ulfm(environment: Mapping[str, str]) -> bool:
    """Whether the launcher was told to let ranks outlive others, and the library can: Open MPI 5 with --with-ft ulfm.

    The library's functions are there, and answer, without the launcher's consent too.
    """
    from mpi4py import MPI

    if environment.get("OMPI_MCA_mpi_ft_enable", "0").lower() not in ("1", "true", "yes", "enabled", "on"):
        return False
    try:
        MPI.COMM_WORLD.Get_failed().Free()
    except (AttributeError, NotImplementedError, MPI.Exception):
        return False
    return True


def check_launch(size: int, environment: Mapping[str, str]) -> None:
    """Raise InputError if several processes were started but each is a world of its own.

    That happens silently when the launcher and the MPI library do not know each other. What an MPI launcher says
    counts before what Slurm says: `mpirun -n 1` inside a larger allocation is a single rank on purpose.
    """
    names = [name for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS") if name in environment]
    if size == 1 and names and environment[names[0]] not in ("", "1"):
        raise InputError(
            f"{names[0]} is {environment[names[0]]}, but this process is the only rank of its MPI world: start with "
            "mpirun -n RANKS, or with an srun --mpi=... that this MPI library supports (mpirun -n 1 for a single rank)"
        )
