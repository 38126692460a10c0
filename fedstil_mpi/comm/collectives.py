"""Collective operations on small plain data, all of which end in time."""

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from fedstil_mpi.comm.failures import GivenUp, Overdue

if TYPE_CHECKING:
    from mpi4py import MPI

SET_UP = 3600.0
"""Seconds that a rank waits for the others where no round's limit holds: one may be warming up the model."""
SHORTEST_NAP, LONGEST_NAP = 1e-4, 1e-2
"""Seconds between two looks. A nap is a fiftieth of what was waited so far: it adds little to a short wait, and during a
long one looking costs others who compute on this core nothing to speak of."""


class Collectives:
    """Ranks that wait for each other and exchange plain data, seen from one of them."""

    def __init__(self, comm: "MPI.Comm", over: "MPI.Comm | None" = None):
        """over: is revoked when the job is given up; None: that cannot happen."""
        self.over = over
        self.timeout: float | None = SET_UP
        """Seconds that a rank waits for the others; None: no limit."""
        self._cut_short: list[MPI.Request] = []
        """What was waited for in vain: MPI may still write to the buffers that these hold."""
        self.comm = comm
        self.rank: int = comm.rank
        self.size: int = comm.size

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
        began = time.monotonic()
        try:
            while not request.Test():
                if self.over is not None and self.over.Is_revoked():
                    raise GivenUp
                waited = time.monotonic() - began
                if self.timeout is not None and waited > self.timeout:
                    raise Overdue(
                        f"waited {self.timeout:g} s for {what}; a rank is stopped, cut off or needs longer (exchange.timeout)"
                    )
                time.sleep(min(max(SHORTEST_NAP, waited / 50), LONGEST_NAP))
        except BaseException:
            self._cut_short.append(request)
            raise

    def wait_all(self, requests: "Sequence[MPI.Request]", what: str = "the other ranks") -> None:
        """As `wait`, one after the other."""
        for place, request in enumerate(requests):
            try:
                self.wait(request, what)
            except BaseException:
                self._cut_short += requests[place + 1 :]
                raise

    def barrier(self) -> None:
        """Wait for all ranks. Collective: all ranks must call."""
        self.wait(self.comm.Ibarrier())

    def any_rank(self, yes: bool) -> bool:
        """Whether any rank says yes; the same on every rank. Collective: all ranks must call."""
        from mpi4py import MPI

        most = np.empty(1, np.int32)
        self.wait(self.comm.Iallreduce(np.array([yes], np.int32), most, op=MPI.MAX))
        return bool(most[0])

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


def _check_kind(found: list[Any], kind: list[Any]) -> None:
    """found: for each rank, how many rows and of which kind (dtype and trailing shape)."""
    if any(other != kind for _, other in found):
        raise ValueError(f"rows of one dtype and trailing shape expected on every rank, found {found}")
