"""Clients have an order, ranks have another: where what belongs to a client is in the one and in the other."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TypeVar

import numpy as np
from torch import Tensor

Rows = TypeVar("Rows", np.ndarray, Tensor)


def ranks_of(clients_of: Sequence[Sequence[int]]) -> dict[int, int]:
    """Client -> its rank; clients_of: the clients of each rank."""
    return {client: rank for rank, clients in enumerate(clients_of) for client in clients}


class Places:
    """Of some clients, given by their ranks in client order. Rows in the order of ranks begin with those of rank 0."""

    def __init__(self, ranks: Sequence[int], size: int):
        """ranks: of each client; size: how many ranks there are."""
        self._of_rank: list[list[int]] = [[] for _ in range(size)]
        """For each rank which of the clients it has."""
        for place, rank in enumerate(ranks):
            self._of_rank[rank].append(place)
        self.counts = [len(places) for places in self._of_rank]
        """How many clients each rank has."""
        self.order = [place for places in self._of_rank for place in places]
        """The clients in the order of ranks."""
        self.is_sorted = self.order == list(range(len(self.order)))
        """Whether that is client order."""

    @cached_property
    def inverse(self) -> list[int]:
        """For each client its place in the order of ranks."""
        return sorted(range(len(self.order)), key=self.order.__getitem__)

    def by_rank(self, rows: Rows) -> Rows:
        """rows: one for each client, in client order."""
        return rows if self.is_sorted else rows[self.order]

    def by_client(self, rows: Rows) -> Rows:
        """What `by_rank` was given."""
        return rows if self.is_sorted else rows[self.inverse]

    def in_turn(self) -> Iterator[tuple[list[int], list[int]]]:
        """Of the first client of every rank, then of the second and so on: 1 for each rank that has one, else 0; and which it is."""
        for turn in range(max(self.counts)):
            there = [int(turn < count) for count in self.counts]
            yield there, [places[turn] if turn < len(places) else 0 for places in self._of_rank]
