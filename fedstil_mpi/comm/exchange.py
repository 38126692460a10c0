"""What the rounds need of whatever carries messages between the server and the clients; and the carrier within one process.

`MpiExchange` carries them between ranks. In one process there is nothing to move: messages are handed over and booked. A
plan counts: it hands over next to nothing, and books what would be sent.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fedstil_mpi.comm import codec
from fedstil_mpi.comm.flat import Message, Part, Rows
from fedstil_mpi.comm.ledger import DOWN, UP, Ledger


class Exchange(Protocol):
    """Carries messages and books them. Every method is collective: all ranks must call, with equal parts and online.

    Where the server is: on rank 0, or by columns on every rank (`comm.column_exchange`), which then has its columns of the
    parts that have such.
    """

    ledger: Ledger
    """Complete on rank 0, empty elsewhere."""
    moved: int
    """Bytes that MPI moved between different ranks, complete on rank 0."""

    rank_of: dict[int, int]
    """Client -> the rank that has it, where there are several; the same on all, and changed between rounds alone."""

    @property
    def is_server(self) -> bool:
        """Whether this is rank 0, where the server decides and the ledger is kept."""

    def down(self, round: int, parts: Sequence[Part], online: Sequence[int], knowledge: Rows) -> dict[int, Message]:
        """Send every online client its knowledge (valid where the server is); returns the messages of this rank's online clients.

        A message is valid until the next call in the same direction, and its receiver leaves it as it is.
        """

    def broadcast(self, round: int, parts: Sequence[Part], online: Sequence[int], knowledge: Message) -> Message:
        """Send the online clients knowledge (valid on rank 0) of shared parts alone; returns it on every rank."""

    def up(self, round: int, parts: Sequence[Part], online: Sequence[int], updates: Mapping[int, Message]) -> Rows:
        """Collect the updates of this rank's online clients; returns those of all, in client order, where the server is."""

    def gather(self, rows: np.ndarray) -> np.ndarray | None:
        """What was measured of every rank's clients, in client order, on rank 0. No edge link carries it: not booked."""

    def share(self, rows: np.ndarray) -> np.ndarray:
        """As `gather`, on every rank."""

    def close(self) -> None:
        """Give back what belongs to this exchange alone; the last call. The ledger stays."""


class InProcessExchange:
    """Server and clients in one process. Raises ValueError where a message is not what its parts say."""

    is_server = True

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.moved = 0
        self.rank_of: dict[int, int] = {}

    def down(self, round: int, parts: Sequence[Part], online: Sequence[int], knowledge: Rows) -> dict[int, Message]:
        _check_kinds(parts, [knowledge])
        messages: dict[int, Message] = {client: {} for client in online}
        for part in parts:
            sent = knowledge[part.kind]
            rows = [sent] * len(online) if part.shared else list(sent)
            for client, row in zip(online, self._carry(round, DOWN, part, online, rows), strict=True):
                messages[client][part.kind] = row
        return messages

    def broadcast(self, round: int, parts: Sequence[Part], online: Sequence[int], knowledge: Message) -> Message:
        return self.down(round, parts, online, knowledge)[online[0]]

    def up(self, round: int, parts: Sequence[Part], online: Sequence[int], updates: Mapping[int, Message]) -> Rows:
        _check_kinds(parts, [updates[client] for client in online])
        gathered: Rows = {}
        for part in parts:
            rows = self._carry(round, UP, part, online, [updates[client][part.kind] for client in online])
            gathered[part.kind] = rows if part.ragged else torch.stack(rows)
        return gathered

    def gather(self, rows: np.ndarray) -> np.ndarray | None:
        return rows

    def share(self, rows: np.ndarray) -> np.ndarray:
        return rows

    def close(self) -> None:
        pass

    def _carry(self, round: int, direction: str, part: Part, online: Sequence[int], rows: list[Tensor]) -> list[Tensor]:
        """What arrives of a part, by online client."""
        rows = [_checked(part, row) for row in rows]
        written = None if part.codec == "dense" else codec.encode_all(part, rows)
        self.ledger.book_rows(round, direction, part, online, rows, written)
        return rows if written is None else codec.decode_all(part, written)


class CountingExchange(InProcessExchange):
    """Moves sizes only, which the parts and the numbers of their items give, whatever the tensors hold.

    No codec is asked what it would make of them: the ledger then knows the bytes before it, or the most after it.
    """

    def _carry(self, round: int, direction: str, part: Part, online: Sequence[int], rows: list[Tensor]) -> list[Tensor]:
        counted: Sequence[Any] = rows
        if part.at_most is not None:
            self.ledger.leave_open(part.kind)
            counted = [range(part.at_most)] * len(rows)
        if part.optional:
            self.ledger.let_lack(direction, part.kind)
        self.ledger.book_rows(round, direction, part, online, counted)
        return rows


def _check_kinds(parts: Sequence[Part], messages: Sequence[Mapping[str, Any]]) -> None:
    kinds = {part.kind for part in parts}
    for message in messages:
        if message.keys() != kinds:
            raise ValueError(f"a message has the parts {sorted(message)}; expected {sorted(kinds)}")


def _checked(part: Part, row: Tensor) -> Tensor:
    """The row in the shape of its part."""
    row = row if part.ragged else row.reshape(-1)
    if row.dtype != part.dtype or row.shape[-1] != part.scalars or row.dim() != 1 + part.ragged:
        raise ValueError(f"{part.kind} is {list(row.shape)} {row.dtype}; expected {part.scalars} scalars, {part.dtype}")
    return row
