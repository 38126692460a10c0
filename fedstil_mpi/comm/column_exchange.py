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
from fedstil_mpi.comm.mpi_exchange import MpiExchange, flat_rows
from fedstil_mpi.comm.world import World
from fedstil_mpi.util.clock import Clock


class ColumnExchange(MpiExchange):
    """An `MpiExchange` whose server is on every rank, with some columns of each row."""

    def __init__(
        self, world: World, clients_of: Sequence[Sequence[int]], clock: Clock, scalars: int, told: frozenset[str]
    ):
        """Collective: all ranks must call. scalars: P; told: the kinds that every rank's server is told, if they are no columns."""
        super().__init__(world, clients_of, clock)
        self._columns = share_out(scalars, world.size)
        self.own = self._columns[world.rank]
        """Of the server, on this rank."""
        self._has_server = True
        self._told = told

    def join(self, columns: Tensor) -> Tensor:
        """[..., this rank's columns] of every rank -> [..., P] on rank 0, elsewhere as it was. Collective: all ranks must call."""
        joined = self._world.gather_rows(columns.movedim(-1, 0).contiguous().numpy())
        return columns if joined is None else torch.from_numpy(joined).movedim(0, -1).contiguous()

    def _down(self, part: Part, online: Sequence[int], knowledge: Rows) -> tuple[Sequence[Tensor], Any]:
        if not part.columns:
            return super()._down(part, online, knowledge)
        sent, mine = knowledge[part.kind], self._mine(online)
        if part.shared:
            whole = torch.empty(1, part.scalars)
            self._move(part, [whole], [[sent.view(1, -1)]] * self._world.size, to_clients=True)
            return list(whole) * len(mine), None
        items = list(sent) if part.ragged else sent.split(1)
        size_of = dict(zip(online, map(len, items), strict=True))
        wholes = [torch.empty(size_of[client], part.scalars) for client in mine]
        cut = [rows.reshape(len(rows), part.columns * _width(self.own)).contiguous() for rows in items]
        self._move(part, wholes, self._by_rank(online, cut), to_clients=True)
        return wholes if part.ragged else [whole[0] for whole in wholes], None

    def _up(self, part: Part, online: Sequence[int], rows: Sequence[Tensor]) -> tuple[Any, Any]:
        if not part.columns:
            items, written = super()._up(part, online, rows)
            return (self._tell(part, online, items) if part.kind in self._told else items), written
        sizes = [1] * len(online)
        if part.ragged:
            number = Part(part.kind, 1, torch.int64)
            gathered = self._gather(number, online, [torch.tensor([len(items)]) for items in rows])
            sizes = self._tell(number, online, gathered)[:, 0].tolist()
        cut = torch.empty(sum(sizes), part.columns * _width(self.own))
        items = list(cut.split(sizes))
        wholes = [row.contiguous().view(-1, part.scalars) for row in rows]
        self._move(part, wholes, self._by_rank(online, items), to_clients=False)
        return (items if part.ragged else cut), None

    def _by_rank(self, online: Sequence[int], items: Sequence[Tensor]) -> list[list[Tensor]]:
        """What belongs to the online clients, by their ranks."""
        of_rank: list[list[Tensor]] = [[] for _ in self._columns]
        for client, rows in zip(online, items, strict=True):
            of_rank[self.rank_of[client]].append(rows)
        return of_rank

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

    def _move(self, part: Part, wholes: Sequence[Tensor], cut: Sequence[Sequence[Tensor]], *, to_clients: bool) -> None:
        """Between whole rows [n, columns * P] of each of this rank's clients and this rank's columns of all clients' rows.

        cut: for each rank what belongs to its clients, [n, columns * width] each. Whole rows lie where each is at home: a
        buffer for all of them would be there beside them. Rows are typed, so that no count passes 2^31.
        """
        requests = []
        for rank, columns in enumerate(self._columns):
            here = [(rows, self._row_type(part, columns, of_whole=True)) for rows in wholes]
            there = [(rows, self._row_type(part, self.own, of_whole=False)) for rows in cut[rank]]
            received, sent = (here, there) if to_clients else (there, here)
            for call, messages in ((self._comm.Irecv, received), (self._comm.Isend, sent)):
                requests += [call([rows, len(rows), kind], rank) for rows, kind in messages if len(rows) and kind]
        self._world.wait_all(requests, f"{part.kind} of other ranks")
        for of_rank, columns in zip(cut, self._columns, strict=True):
            rows = sum(map(len, of_rank))
            self.moved += rows * (part.itemsize - part.columns * _width(columns) * part.dtype.itemsize)

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
