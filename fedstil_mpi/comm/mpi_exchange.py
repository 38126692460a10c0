"""Scatter and broadcast knowledge, gather updates: flat preallocated buffers, upper-case collectives, no pickle.

One Scatterv or Gatherv moves the rows of all online clients, which in client order need not be in the order of ranks: small ones
are rearranged, large ones go from and to where they are, each with a collective. The collectives are used in their
nonblocking form and polled with sleeps (`World.wait`), so that a rank which waits does not burn its core.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedstil_mpi.comm import codec
from fedstil_mpi.comm.flat import Message, Part, Rows
from fedstil_mpi.comm.ledger import DOWN, UP, Ledger
from fedstil_mpi.comm.places import Places, ranks_of
from fedstil_mpi.comm.world import World
from fedstil_mpi.util.clock import Clock

LARGE_ROW = 1 << 20
"""Bytes of a client's row from which on it is collected by itself: to copy it beside others costs more than another collective."""


class MpiExchange:
    """Moves messages between the server (rank 0) and the clients of every rank, and books them (see `Exchange`).

    Buffers are allocated once per kind and direction and used again: a message that was received is valid until the
    next call in the same direction.
    """

    def __init__(
        self,
        world: World,
        clients_of: Sequence[Sequence[int]],
        clock: Clock,
    ):
        """Collective: all ranks must call.

        clients_of: the clients of each rank, at first. clock: measures how long this rank waits until all are there ("wait"), and
        how long the data then move ("exchange").
        """
        self.ledger = Ledger()
        """Complete on rank 0, empty elsewhere."""
        self.moved = 0
        """Bytes that MPI moved between different ranks in this object's collectives; the same on every rank for
        fixed parts, complete on rank 0."""
        self.is_server = world.is_server
        self._has_server = world.is_server
        self._world = world
        self._clock = clock
        self._comm = world.duplicate("exchange")
        self.rank_of = ranks_of(clients_of)
        self._buffers: dict[tuple[str, Part], Tensor] = {}
        self._types: dict[Any, Any] = {}

    def close(self) -> None:
        """Free the communicator and the datatypes, of which MPI has a limited number. Collective: all ranks must call."""
        for kind in self._types.values():
            kind.Free()
        self._types.clear()
        self._world.free(self._comm)

    def down(self, round: int, parts: Sequence[Part], online: Sequence[int], knowledge: Rows) -> dict[int, Message]:
        """Send every online client its knowledge. Collective: all ranks must call with equal parts and online.

        knowledge: valid where the server is. Returns the messages of this rank's online clients.
        """
        mine = self._mine(online)
        messages: dict[int, Message] = {client: {} for client in mine}
        with self._timed():
            for part in parts:
                rows, written = self._down(part, online, knowledge)
                for client, row in zip(mine, rows, strict=True):
                    messages[client][part.kind] = row
                if self.is_server:
                    self.ledger.book_rows(round, DOWN, part, online, knowledge[part.kind], written)
        return messages

    def broadcast(self, round: int, parts: Sequence[Part], online: Sequence[int], knowledge: Message) -> Message:
        """Collective: all ranks must call with equal parts and online."""
        with self._timed():
            if self.is_server:
                for part in parts:
                    self.ledger.book_rows(round, DOWN, part, online, knowledge[part.kind])
            return {part.kind: self._broadcast(part, knowledge.get(part.kind)) for part in parts}

    def up(self, round: int, parts: Sequence[Part], online: Sequence[int], updates: Mapping[int, Message]) -> Rows:
        """Collect the online clients' updates. Collective: all ranks must call with equal parts and online.

        updates: of this rank's online clients. Returns the rows of all online clients, in client order, where the
        server is; elsewhere nothing.
        """
        mine = self._mine(online)
        gathered: Rows = {}
        with self._timed():
            for part in parts:
                items, written = self._up(part, online, [updates[client][part.kind] for client in mine])
                if self.is_server:
                    self.ledger.book_rows(round, UP, part, online, items, written)
                if self._has_server:
                    gathered[part.kind] = items
        return gathered

    def gather(self, rows: np.ndarray) -> np.ndarray | None:
        gathered = self._world.gather_rows(rows)
        return None if gathered is None else self._places(list(self.rank_of)).by_client(gathered)

    def share(self, rows: np.ndarray) -> np.ndarray:
        return self._world.allgather_rows(rows)

    # -- one part ------------------------------------------------------------------------------------------------------

    def _down(self, part: Part, online: Sequence[int], knowledge: Rows) -> tuple[Sequence[Tensor], Any]:
        """What this rank's online clients get of a part, and what a codec made of it on rank 0."""
        sent = knowledge[part.kind] if self.is_server else None
        if part.shared:
            return [self._broadcast(part, sent)] * len(self._mine(online)), None
        if not part.ragged:
            return list(self._scatter(part, online, sent)), None
        written = codec.encode_all(part, sent) if sent is not None else None
        return codec.decode_all(part, self._scatter_ragged(codec.encoded_part(part), online, written)), written

    def _up(self, part: Part, online: Sequence[int], rows: Sequence[Tensor]) -> tuple[Any, Any]:
        """A part of what all online clients send, and what a codec made of it; on rank 0. rows: of this rank's."""
        if not part.ragged:
            return self._gather(part, online, rows), None
        written = self._gather_ragged(codec.encoded_part(part), online, codec.encode_all(part, rows))
        return codec.decode_all(part, written), written

    def _broadcast(self, part: Part, value: Tensor | None) -> Tensor:
        buffer = self._buffer(DOWN, part, 1)[0]
        if value is not None:
            buffer.copy_(value.reshape(part.scalars))
        self._world.wait(self._comm.Ibcast([buffer, 1, self._type(part)], root=0), f"{part.kind} from the server")
        self.moved += part.itemsize * (self._world.size - 1)
        return buffer

    def _scatter(self, part: Part, online: Sequence[int], rows: Tensor | None) -> Tensor:
        places = self._places(online)
        received = self._buffer(DOWN, part, places.counts[self._world.rank])
        if rows is not None:
            rows = rows.to(part.dtype).contiguous().view(len(online), part.scalars)
        if places.is_sorted or part.itemsize < LARGE_ROW:
            self._scatterv(part, places.counts, rows if rows is None else places.by_rank(rows), received)
        else:
            self._scatter_each(part, places, rows, received)
        return received

    def _scatter_each(self, part: Part, places: Places, rows: Tensor | None, received: Tensor) -> None:
        """Rows from where they are; as `_gather_each`."""
        requests: list[Any] = []
        for there, of_ranks in places.in_turn():
            place = len(requests)
            requests.append(self._start_scatterv(part, there, of_ranks, rows, received[place : place + 1]))
        self._world.wait_all(requests, f"{part.kind} from the server")

    def _scatter_ragged(self, part: Part, online: Sequence[int], items: Sequence[Tensor] | None) -> list[Tensor]:
        sizes_part = Part(part.kind, 1, torch.int64)
        sizes = None if items is None else torch.tensor([[len(i)] for i in items])
        my_sizes = self._scatter(sizes_part, online, sizes)[:, 0].tolist()
        received = torch.empty(sum(my_sizes), part.scalars, dtype=part.dtype)
        flat, counts = None, None
        if items is not None:
            flat = flat_rows(part, [items[place] for place in self._places(online).order])
            counts = self._per_rank(online, [len(i) for i in items])
        self._scatterv(part, counts, flat, received)
        return list(received.split(my_sizes))

    def _gather(self, part: Part, online: Sequence[int], rows: Sequence[Tensor]) -> Tensor:
        places, nothing = self._places(online), torch.empty(0, part.scalars, dtype=part.dtype)
        received = self._buffer("server", part, len(online)) if self.is_server else None
        flat = [row.to(part.dtype).reshape(1, part.scalars) for row in rows]
        if part.itemsize >= LARGE_ROW:
            self._gather_each(part, places, flat or [nothing], received)
            return nothing if received is None else received
        self._gatherv(part, places.counts, torch.cat([nothing, *flat]), received)
        return nothing if received is None else places.by_client(received)

    def _gather_each(self, part: Part, places: Places, rows: Sequence[Tensor], received: Tensor | None) -> None:
        """Rows from where they are, without a buffer: a collective for the first of every rank, one for the second, and so on."""
        nothing = rows[0][:0]
        requests: list[Any] = []
        for there, of_ranks in places.in_turn():
            sent = rows[len(requests)] if there[self._world.rank] else nothing
            requests.append(self._start_gatherv(part, there, of_ranks, sent, received))
        self._world.wait_all(requests, f"{part.kind} from the clients")

    def _gather_ragged(self, part: Part, online: Sequence[int], rows: Sequence[Tensor]) -> list[Tensor]:
        sizes_part = Part(part.kind, 1, torch.int64)
        sizes = self._gather(sizes_part, online, [torch.tensor([len(r)]) for r in rows])[:, 0].tolist()
        sent, received, counts = flat_rows(part, rows), None, None
        if self.is_server:
            received = torch.empty(sum(sizes), part.scalars, dtype=part.dtype)
            counts = self._per_rank(online, sizes)
        self._gatherv(part, counts, sent, received)
        if received is None:
            return []
        places = self._places(online)
        by_rank = received.split([sizes[place] for place in places.order])
        return [by_rank[place] for place in places.inverse]

    # -- collectives in rows; the row is a datatype of its own, so that no count passes 2^31 ---------------------------

    def _scatterv(self, part: Part, counts: list[int] | None, rows: Tensor | None, received: Tensor) -> None:
        request = self._start_scatterv(part, counts, _displacements(counts), rows, received)
        self._world.wait(request, f"{part.kind} from the server")

    def _start_scatterv(
        self, part: Part, counts: list[int] | None, places: list[int], rows: Tensor | None, received: Tensor
    ) -> Any:
        """As `_start_gatherv`; received: this rank's."""
        kind = self._type(part)
        sent = None if rows is None else [rows, counts, places, kind]
        if counts is not None:
            self.moved += part.itemsize * sum(counts[1:])
        return self._comm.Iscatterv(sent, [received, len(received), kind], root=0)

    def _gatherv(self, part: Part, counts: list[int] | None, sent: Tensor, received: Tensor | None) -> None:
        request = self._start_gatherv(part, counts, _displacements(counts), sent, received)
        self._world.wait(request, f"{part.kind} from the clients")

    def _start_gatherv(
        self, part: Part, counts: list[int] | None, places: list[int], sent: Tensor, received: Tensor | None
    ) -> Any:
        """counts, places: of each rank's rows in `received`, both valid where that is."""
        kind = self._type(part)
        target = None if received is None else [received, counts, places, kind]
        if counts is not None:
            self.moved += part.itemsize * sum(counts[1:])
        return self._comm.Igatherv([sent, len(sent), kind], target, root=0)

    # -- bookkeeping ---------------------------------------------------------------------------------------------------

    def _mine(self, online: Sequence[int]) -> list[int]:
        return [client for client in online if self.rank_of[client] == self._world.rank]

    def _per_rank(self, online: Sequence[int], sizes: Sequence[int]) -> list[int]:
        sums = [0] * self._world.size
        for client, size in zip(online, sizes, strict=True):
            sums[self.rank_of[client]] += size
        return sums

    def _places(self, online: Sequence[int]) -> Places:
        return Places([self.rank_of[client] for client in online], self._world.size)

    def _buffer(self, direction: str, part: Part, rows: int) -> Tensor:
        buffer = self._buffers.get((direction, part))
        if buffer is None or len(buffer) < rows:
            buffer = self._buffers[direction, part] = torch.empty(rows, part.scalars, dtype=part.dtype)
        return buffer[:rows]

    def _type(self, part: Part) -> Any:
        from mpi4py import MPI

        if part not in self._types:
            self._types[part] = MPI.BYTE.Create_contiguous(part.itemsize).Commit()
        return self._types[part]

    @contextmanager
    def _timed(self) -> Iterator[None]:
        with self._clock("wait"):
            self._world.barrier()
        with self._clock("exchange"):
            yield


def flat_rows(part: Part, items: Sequence[Tensor]) -> Tensor:
    """The clients' items of a ragged part, one below the other, [items, scalars] in host memory."""
    return torch.cat([torch.empty(0, part.scalars, dtype=part.dtype), *(i.to(part.dtype).cpu() for i in items)])


def _displacements(counts: Sequence[int] | None) -> list[int]:
    return list(accumulate(counts, initial=0))[:-1] if counts else []
