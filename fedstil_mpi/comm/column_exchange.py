"""The server's work shared out by columns: each rank keeps some of the P weights of all clients, and computes with these.

What is K times P large then lies on no single rank, and no rank mixes for all. Servers treat every column by itself, so
that a rank's server does to its columns what rank 0's would do to all. A client's message is cut and put together at the
columns, straight from and into its row; of parts that are no weights rank 0 has all, as ever, and tells the other ranks
what their servers ask for. The ledger knows nothing of it: an edge link carries what it would carry.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fedstil_mpi.comm.columns import share_out
from fedstil_mpi.comm.flat import Part, Rows
from fedstil_mpi.comm.ledger import DOWN, UP
from fedstil_mpi.comm.mpi_exchange import MpiExchange, flat_rows
from fedstil_mpi.comm.world import World
from fedstil_mpi.util.clock import Clock


class ColumnExchange(MpiExchange):
    """An `MpiExchange` whose server is on every rank, with `columns` of each row."""

    def __init__(
        self, world: World, clients_of: Sequence[Sequence[int]], clock: Clock, scalars: int, told: frozenset[str]
    ):
        """Collective: all ranks must call. scalars: P; told: the kinds that every rank's server is told, if they are no columns."""
        super().__init__(world, clients_of, clock)
        self._columns = share_out(scalars, world.size)
        self.columns = self.own = self._columns[world.rank]
        self._told = told

    def join(self, columns: Tensor) -> Tensor:
        """[..., this rank's columns] of every rank -> [..., P] on rank 0, elsewhere as it was. Collective: all ranks must call."""
        joined = self._world.gather_rows(columns.movedim(-1, 0).contiguous().numpy())
        return columns if joined is None else torch.from_numpy(joined).movedim(0, -1).contiguous()

    def _down(self, part: Part, online: Sequence[int], knowledge: Rows) -> tuple[Sequence[Tensor], Any]:
        if not part.columns:
            return super()._down(part, online, knowledge)
        sent = knowledge[part.kind]
        if part.shared:
            (whole,) = self._buffer(DOWN, part, 1)
            self._move(part, whole[None], [sent.view(1, -1)] * self._world.size, to_clients=True)
            return [whole] * len(self._mine(online)), None
        sizes = [len(items) for items in sent] if part.ragged else [1] * len(online)
        counts = self._per_rank(online, sizes)
        rows = (torch.cat(list(sent)) if part.ragged else sent).reshape(sum(counts), part.columns * _width(self.own))
        whole = self._buffer(DOWN, part, counts[self._world.rank])
        self._move(part, whole, rows.split(counts), to_clients=True)
        if not part.ragged:
            return list(whole), None
        size_of = dict(zip(online, sizes, strict=True))
        return list(whole.split([size_of[client] for client in self._mine(online)])), None

    def _up(self, part: Part, online: Sequence[int], rows: Sequence[Tensor]) -> tuple[Any, Any]:
        if not part.columns:
            items, written = super()._up(part, online, rows)
            return (self._tell(part, online, items) if part.kind in self._told else items), written
        sizes = [1] * len(online)
        if part.ragged:
            number = Part(part.kind, 1, torch.int64)
            gathered = self._gather(number, online, [torch.tensor([len(items)]) for items in rows])
            sizes = self._tell(number, online, gathered)[:, 0].tolist()
        counts = self._per_rank(online, sizes)
        whole = self._buffer(UP, part, counts[self._world.rank])
        if rows:
            torch.cat([row.view(-1, part.scalars) for row in rows], out=whole)
        cut = torch.empty(sum(counts), part.columns * _width(self.own))
        self._move(part, whole, cut.split(counts), to_clients=False)
        return (list(cut.split(sizes)) if part.ragged else cut), None

    def _tell(self, part: Part, online: Sequence[int], items: Any) -> Any:
        """What rank 0 has of a part of the online clients' messages, on every rank."""
        if not part.ragged:
            return self._told_rows(part, items if self.is_server else None, len(online))
        sizes = torch.tensor([len(rows) for rows in items]).view(-1, 1) if self.is_server else None
        lengths = self._told_rows(Part(part.kind, 1, torch.int64), sizes, len(online))[:, 0].tolist()
        rows = flat_rows(part, items) if self.is_server else None
        return list(self._told_rows(part, rows, sum(lengths)).split(lengths))

    def _told_rows(self, part: Part, rows: Tensor | None, number: int) -> Tensor:
        """rows: [number, scalars], on rank 0."""
        told = torch.empty(number, part.scalars, dtype=part.dtype) if rows is None else rows.contiguous()
        self._world.wait(self._comm.Ibcast([told, number, self._type(part)], root=0), f"{part.kind} from the server")
        self.moved += told.nbytes * (self._world.size - 1)
        return told

    def _move(self, part: Part, whole: Tensor, cut: Sequence[Tensor], *, to_clients: bool) -> None:
        """Between the whole rows [n, columns * P] of this rank's clients and this rank's columns of all clients' rows.

        cut: for each rank the rows of its clients, [n_r, columns * width]. Rows are typed, so that no count passes 2^31.
        """
        requests = []
        for rank, columns in enumerate(self._columns):
            here = [whole, len(whole), self._row_type(part, columns, of_whole=True)]
            there = [cut[rank], len(cut[rank]), self._row_type(part, self.own, of_whole=False)]
            received, sent = (here, there) if to_clients else (there, here)
            for call, (rows, number, kind) in ((self._comm.Irecv, received), (self._comm.Isend, sent)):
                if number and kind is not None:
                    requests.append(call([rows, number, kind], rank))
        for request in requests:
            self._world.wait(request, f"{part.kind} of other ranks")
        for rows, columns in zip(cut, self._columns, strict=True):
            self.moved += len(rows) * (part.itemsize - part.columns * _width(columns) * part.dtype.itemsize)

    def _row_type(self, part: Part, columns: slice, *, of_whole: bool) -> Any:
        """These columns of a row, which holds all columns or only these; None where there are none."""
        from mpi4py import MPI

        width, key = _width(columns), (part, columns.start, of_whole)
        if not width:
            return None
        if key not in self._types:
            row, start = (part.scalars // part.columns, columns.start) if of_whole else (width, 0)
            vectors = part.columns
            self._types[key] = MPI.FLOAT.Create_subarray([vectors, row], [vectors, width], [0, start]).Commit()
        return self._types[key]


def _width(columns: slice) -> int:
    return columns.stop - columns.start
