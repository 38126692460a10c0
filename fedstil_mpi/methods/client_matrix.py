"""What a server keeps of its clients, a row of P weights for each, and mixes: at the cost of those who take part."""

from collections.abc import Iterable, MutableMapping, Sequence

import torch
from torch import Tensor

from fedstil_mpi.comm.columns import BLOCK, blocks
from fedstil_mpi.launch.allocator import return_freed_memory
from fedstil_mpi.util.file_rows import FileRows
from fedstil_mpi.util.shelf import RESIDENT, Shelf

AT_ONCE = 1 << 13
"""Columns of which a sum is brought up to date: temporaries stay in a core's cache, and calls take little of the time."""


class ClientMatrix:
    """Rows of K clients; one that has none yet stands where all start, and takes no memory."""

    def __init__(self, clients: int, start: Tensor, rows: MutableMapping[int, Tensor] | None = None):
        """start: float32 [P] on the CPU; rows: where they lie, by client, empty."""
        self.clients = clients
        self.start = start
        self.rows: MutableMapping[int, Tensor] = {} if rows is None else rows
        self.sum_P = torch.zeros_like(start, dtype=torch.float64)
        """Of the rows of those who count."""
        self.counted: set[int] = set()
        self._replaced = 0
        """Bytes of rows that were set, of those on a shelf, since what they replaced was given back to the system."""

    def __getitem__(self, client: int) -> Tensor:
        """It holds until the row is set again, and must not be changed."""
        return self.part(client, slice(None))

    def part(self, client: int, columns: slice) -> Tensor:
        """Some columns of a client's row, as `__getitem__`."""
        rows = self.rows
        if isinstance(rows, Shelf) and client in rows:
            return rows.part(client, columns)
        return rows.get(client, self.start)[columns]

    def __setitem__(self, client: int, row_P: Tensor) -> None:
        """row_P: is kept, and must not change."""
        if client in self.counted:
            before = self[client]
            for columns in blocks(len(row_P), AT_ONCE):
                self.sum_P[columns].add_(row_P[columns].double().sub_(before[columns]))
        self.rows[client] = row_P
        if isinstance(self.rows, Shelf):
            self._give_back(row_P.nbytes)

    def count(self, clients: Iterable[int]) -> None:
        """Let these clients, who have rows, be part of the mean from now on."""
        for client in clients:
            if client not in self.counted:
                self.sum_P += self[client]
                self.counted.add(client)

    def _give_back(self, size: int) -> None:
        """Rows that went to the file leave gaps which new ones seldom fit into (`launch.allocator`)."""
        self._replaced += size
        if self._replaced > RESIDENT:
            return_freed_memory()
            self._replaced = 0

    def of(self, clients: Sequence[int], columns: slice = slice(None), into: Tensor | None = None) -> Tensor:
        """Copies of their rows, [n, P], or of some columns. into: where they come to lie."""
        if not clients:
            return self.start[columns].new_empty(0, len(self.start[columns]))
        return torch.stack([self.part(client, columns) for client in clients], out=into)

    def mixed(self, mean_O: Tensor, beside_OK: Tensor, into: FileRows | None = None) -> Tensor | FileRows:
        """mean_O x the mean of those who count + beside_OK @ the rows, [O, P]; only the rows that are taken from are read.

        into: where they come to lie; None: in memory.
        """
        partners = beside_OK.any(0).nonzero()[:, 0]
        weights, clients = beside_OK[:, partners], partners.tolist()
        mixed_OP = self.start.new_empty(len(mean_O), len(self.start)) if into is None else into
        lengths = (len(clients), len(mean_O), len(mean_O))
        longest = min(BLOCK, len(self.start))
        buffers = [self.start.new_empty(n * longest) for n in lengths]  # of all blocks, since new ones leave gaps, too
        for columns in blocks(len(self.start)):  # as `comm.columns.mix`, without copies of whole rows
            width = len(self.start[columns])
            rows, block, of_mean = (of[: n * width].view(n, width) for n, of in zip(lengths, buffers, strict=True))
            torch.mm(weights, self.of(clients, columns, rows), out=block)
            if self.counted:
                block += torch.mul(mean_O[:, None], (self.sum_P[columns] / len(self.counted)).float(), out=of_mean)
            mixed_OP[:, columns] = block
        return mixed_OP
