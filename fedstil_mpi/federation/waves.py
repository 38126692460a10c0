"""A round in waves: where many clients are online, their models are in memory by portions.

The server is asked and told of all clients together, as ever, so that nothing comes out otherwise; what it is given and gives
is sent portion by portion.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch

from fedstil_mpi.comm.flat import Part, Rows
from fedstil_mpi.methods.federated import WEIGHTS
from fedstil_mpi.util.file_rows import FileRows

T = TypeVar("T")


def portions(clients: Sequence[T], at_once: int | None) -> list[list[T]]:
    """At most so many at once, None for all; each portion in their order, and with some from all along it."""
    number = math.ceil(len(clients) / at_once) if at_once and clients else 1
    return [list(clients[first::number]) for first in range(number)]


def rows_of(wave: Sequence[int], parts: Iterable[Part], rows: Rows, clients: Sequence[int]) -> Rows:
    """Of what is for all these clients, what is for those of a wave."""
    if len(wave) == len(clients):
        return rows
    place = {client: place for place, client in enumerate(clients)}
    places = [place[client] for client in wave]
    chosen = {}
    for part in parts:
        if part.kind in rows:
            of_all = rows[part.kind]
            if part.ragged and not part.shared:
                of_all = [of_all[place] for place in places]
            elif not part.shared:
                of_all = of_all[places]
            chosen[part.kind] = of_all
    return chosen


class Arriving:
    """What clients send in waves, put together as if it had come at once; weights are in a file, unless there is one wave."""

    def __init__(self, clients: Sequence[int]):
        self._place = {client: place for place, client in enumerate(clients)}
        self.rows: Rows = {}
        """As `Exchange.up` returns them, of all the clients, once the last wave is there."""

    def add(self, wave: Sequence[int], parts: Iterable[Part], rows: Rows) -> None:
        """rows: of the clients of a wave, in their order; they need not stay."""
        if len(wave) == len(self._place):
            self.rows = rows
            return
        places = [self._place[client] for client in wave]
        for part in parts:
            of_wave = rows.get(part.kind, ())
            if not len(of_wave):  # what ranks that share the server's work are not told
                continue
            if part.kind not in self.rows:
                self.rows[part.kind] = self._empty(part, of_wave)
            for place, row in zip(places, of_wave, strict=True):
                self.rows[part.kind][place] = row.clone() if part.ragged else row

    def _empty(self, part: Part, first: Any) -> Any:
        """For a part of all clients' messages, of which a wave's has come."""
        number = len(self._place)
        if part.ragged:
            return [None] * number
        if part.kind == WEIGHTS:
            return FileRows(number, first.shape[1], first.dtype)
        return torch.empty(number, first.shape[1], dtype=first.dtype)
