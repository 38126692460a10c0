"""The ranks of a run: starting MPI, agreeing whether all is well, and small plain data from and to rank 0.

MPI is imported only when `start` is entered, after its settings are in the environment.
"""

import json
import math
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from fedstil_mpi.comm.guard import INPUT_ERROR, OrderlyEnd, abort_on_error, say
from fedstil_mpi.errors import InputError

if TYPE_CHECKING:
    from mpi4py import MPI

PLACES = ("client", "task", "round")
"""The order in which a failure names where it happened; other names follow."""


class World:
    """All ranks of the run, seen from this one. Creating it is collective: all ranks must do so."""

    def __init__(self, all_ranks: "MPI.Intracomm", same_host: "MPI.Comm"):
        """`same_host`: the ranks that share memory with this one, in the order of `all_ranks`."""
        self.comm = all_ranks
        self.rank: int = all_ranks.rank
        self.size: int = all_ranks.size
        self.is_server = self.rank == 0
        self.host = platform.node()
        self.local_rank: int = same_host.rank
        self.local_size: int = same_host.size
        first = np.array([self.rank])
        same_host.Bcast(first, root=0)
        self.node = int(first[0])
        """The lowest rank on the same host: names the node even where two nodes report the same host name."""
        self.where: dict[str, int | str] = {}

    def at(self, **place: int | str | None) -> None:
        """Note what this rank is doing, for example `at(round=3, client=1)`; None forgets a name. Not collective."""
        known = {**self.where, **place}
        names = [*(name for name in PLACES if name in known), *(name for name in known if name not in PLACES)]
        self.where = {name: value for name in names if (value := known[name]) is not None}

    def wait(self, request: "MPI.Request") -> None:
        """Wait for a nonblocking operation, asleep between looks: no MPI library is known to sleep by itself."""
        pause = 1e-4
        while not request.Test():
            time.sleep(pause)
            pause = min(1.5 * pause, 2e-3)

    def barrier(self) -> None:
        """Wait for all ranks. Collective: all ranks must call."""
        self.wait(self.comm.Ibarrier())

    def broadcast_json(self, value: Any = None) -> Any:
        """What rank 0 gives, as it comes out of JSON, on every rank. Collective: all ranks must call."""
        data = np.frombuffer(json.dumps(value).encode(), np.uint8) if self.rank == 0 else None
        size = np.array([0 if data is None else len(data)])
        self.wait(self.comm.Ibcast(size, root=0))
        buffer = np.empty(size[0], np.uint8) if data is None else data.copy()
        self.wait(self.comm.Ibcast(buffer, root=0))
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
        if found is not None and any(other != kind for _, other in found):
            raise ValueError(f"rows of one dtype and trailing shape expected on every rank, found {found}")
        row_bytes = rows.dtype.itemsize * math.prod(rows.shape[1:])
        gathered, _ = self._gather(np.ascontiguousarray(rows).reshape(-1).view(np.uint8), max(row_bytes, 1))
        if found is None:
            return None
        return gathered.view(rows.dtype).reshape(sum(count for count, _ in found), *rows.shape[1:])

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
        messages = self.broadcast_json(self.gather_json(message))
        refused = [m for m in dict.fromkeys(messages) if m is not None]
        if refused:
            if self.rank == 0:
                for line in refused:
                    say(line)
            raise OrderlyEnd


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
    world = World(MPI.COMM_WORLD.Dup(), same_host)
    same_host.Free()
    return world


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
