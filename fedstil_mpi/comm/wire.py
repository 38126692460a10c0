"""How a vector of weights travels in one direction: with which codec, and which rows of the classifier."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from fedstil_mpi.comm.flat import Layout, Message, Part
from fedstil_mpi.comm.lossy import LossyCodec, groups, payload_part

CLASSIFIER = "classifier.weight"
ROWS = "rows"
"""The kind of the classifier's rows where they travel one by one; each is a payload of its own."""


@dataclass(frozen=True)
class Wire:
    """float32 [P] in host memory <-> the parts of a message."""

    kind: str
    """Of the weights."""
    layout: Layout
    codec: str
    """As in the config: none, or one of `config.sections.LOSSY`."""
    dead_zone: float = 1.2
    known_rows: bool = False
    """Whether of the classifier only the rows of people travel whom the client knows; both ends know them."""
    optional: bool = False
    """Whether `nothing` may be sent instead."""

    @property
    def parts(self) -> tuple[Part, ...]:
        dense = Part(self.kind, self._rest.scalars)
        weights = dense if self._codec is None else payload_part(dense, self._codec)
        if self.optional:
            weights = replace(weights, ragged=True, optional=True)
        if not self.known_rows:
            return (weights,)
        length = self._length
        if self._row_codec is None:
            return weights, Part(ROWS, length, ragged=True, optional=self.optional)
        size = self._row_codec.size
        return weights, Part(ROWS, size, torch.uint8, ragged=True, raw=4 * length, optional=self.optional)

    def nothing(self) -> tuple[Message, Tensor]:
        """The message without values, and the zeros that `unpack` will give. Only where that is optional."""
        empty = {part.kind: torch.empty(0, part.scalars, dtype=part.dtype) for part in self.parts}
        return empty, torch.zeros(self.layout.scalars)

    def send(self, values: Tensor, known: Sequence[int]) -> tuple[Message, Tensor]:
        """The message with these values, and what `unpack` will give; known: the people whose rows are in it, in order."""
        rest, rows = self._split(values)
        codec = self._codec
        sent, arrives = (rest, rest) if codec is None else codec.send(rest)
        part = self.parts[0]
        message = {self.kind: sent.view(-1, part.scalars) if part.ragged else sent}
        if not self.known_rows:
            return message, arrives
        chosen = rows[places(known, rows)]
        if self._row_codec is not None:
            payloads = [self._row_codec.encode(row) for row in chosen]
            chosen = torch.stack(payloads) if payloads else torch.empty(0, self._row_codec.size, dtype=torch.uint8)
        message[ROWS] = chosen
        return message, self._joined(arrives, chosen, known)

    def unpack(self, message: Message, known: Sequence[int]) -> Tensor:
        """What has arrived, float32 [P]; rows that did not travel are 0. Raises ValueError for a damaged payload."""
        rest = message[self.kind].reshape(-1)
        if self.optional and not len(rest):
            return torch.zeros(self.layout.scalars)
        rest = rest if self._codec is None else self._codec.decode(rest)
        return self._joined(rest, message[ROWS], known) if self.known_rows else rest

    def _joined(self, rest: Tensor, found: Tensor, known: Sequence[int]) -> Tensor:
        """found: the rows of those who are known, as they travel."""
        rows = torch.zeros(self._classes, self._length)
        if len(found):
            if self._row_codec is not None:
                found = torch.stack([self._row_codec.decode(payload) for payload in found])
            rows[places(known, rows)] = found
        pieces = self._rest.unpack(rest) | {CLASSIFIER: rows}
        return self.layout.pack(pieces)

    def only_known(self, values: Tensor, known: Sequence[int]) -> Tensor:
        """With zeros for the rows that do not travel: what moves them is noise to all but those who know the person."""
        if not self.known_rows:
            return values
        _, rows = self._split(values)
        kept = torch.zeros_like(rows)
        chosen = places(known, rows)
        kept[chosen] = rows[chosen]
        return self.layout.pack(self.layout.unpack(values) | {CLASSIFIER: kept})

    @cached_property
    def _rest(self) -> Layout:
        """What travels in one piece."""
        if not self.known_rows:
            return self.layout
        shapes = {
            name: shape for name, shape in zip(self.layout.names, self.layout.shapes, strict=True) if name != CLASSIFIER
        }
        return Layout(tuple(shapes), tuple(shapes.values()), self.layout.dtype)

    @cached_property
    def _codec(self) -> LossyCodec | None:
        return None if self.codec == "none" else LossyCodec(self.codec, groups(self._rest), self.dead_zone)

    @cached_property
    def _row_codec(self) -> LossyCodec | None:
        """An entropy code's length varies, and that of a row must not."""
        name = "ternary" if self.codec == "ternary_entropy" else self.codec
        return None if name == "none" else LossyCodec(name, ((1, self._length),))

    @property
    def _classes(self) -> int:
        return self.layout.shapes[self.layout.names.index(CLASSIFIER)][0]

    @property
    def _length(self) -> int:
        return prod(self.layout.shapes[self.layout.names.index(CLASSIFIER)][1:])

    def _split(self, values: Tensor) -> tuple[Tensor, Tensor]:
        if not self.known_rows:
            return values, values
        pieces = self.layout.unpack(values)
        return self._rest.pack(pieces), pieces[CLASSIFIER]


def places(known: Sequence[int], rows: Tensor) -> Tensor:
    """Which of the rows are these people's. In a plan, whose network has one number of everything, they share one."""
    return torch.tensor(known, dtype=torch.int64).clamp(max=len(rows) - 1)
