"""What a server keeps of its clients, a row of P weights for each, and mixes: at the cost of those who take part."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from fedstil_mpi.comm.columns import BLOCK, mix


class ClientMatrix:
    """Rows of K clients; one that has none yet stands where all start, and takes no memory."""

    def __init__(self, clients: int, start: Tensor):
        """start: float32 [P] on the CPU."""
        self.clients = clients
        self.start = start
        self.rows: dict[int, Tensor] = {}
        self.sum_P = torch.zeros_like(start, dtype=torch.float64)
        """Of the rows of those who count."""
        self.counted: set[int] = set()

    def __getitem__(self, client: int) -> Tensor:
        return self.rows.get(client, self.start)

    def __setitem__(self, client: int, row_P: Tensor) -> None:
        """row_P: is kept, and must not change."""
        if client in self.counted:
            self.sum_P += row_P.double() - self.rows[client]
        self.rows[client] = row_P

    def count(self, clients: Iterable[int]) -> None:
        """Let these clients, who have rows, be part of the mean from now on."""
        for client in clients:
            if client not in self.counted:
                self.sum_P += self.rows[client]
                self.counted.add(client)

    def of(self, clients: Sequence[int]) -> Tensor:
        """Copies of their rows, [n, P]."""
        return (
            torch.stack([self[client] for client in clients]) if clients else self.start.new_empty(0, len(self.start))
        )

    def mixed(self, mean_O: Tensor, beside_OK: Tensor) -> Tensor:
        """mean_O x the mean of those who count + beside_OK @ the rows, [O, P]; only the rows that are taken from are read."""
        partners = beside_OK.any(0).nonzero()[:, 0]
        mixed_OP = mix(beside_OK[:, partners], self.of(partners.tolist()))
        if self.counted:
            mean_P = (self.sum_P / len(self.counted)).float()
            for columns, of_mean in zip(mixed_OP.split(BLOCK, 1), mean_P.split(BLOCK), strict=True):
                columns += mean_O[:, None] * of_mean
        return mixed_OP
