"""Lossy codecs for weights and how far they moved: few bits a scalar, and a scale for each output channel.

A payload is the CRC-32 of the rest, the scales (bfloat16), and the codes (`quantisers`).
"""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fedstil_mpi.comm.flat import Layout, Part
from fedstil_mpi.comm.quantisers import Quantiser, quantiser

LEAST = 64
"""Scalars that share a scale at least, so that scales cost at most a quarter of a bit a scalar."""
CHECKSUM = 4
"""Bytes of a payload's CRC-32."""
PIECE = 1 << 16
"""Scalars that are quantised at once, so that all that is made of them stays in a core's cache; of a larger group all."""
HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}

Groups = tuple[tuple[int, int], ...]
"""(number, size) of the groups of scalars that share a scale, tensor by tensor."""


def groups(layout: Layout) -> Groups:
    """The output channels of each tensor; a vector is one group, and small channels are taken together."""
    return tuple(_groups(shape) for shape in layout.shapes)


def _groups(shape: tuple[int, ...]) -> tuple[int, int]:
    scalars = torch.Size(shape).numel()
    if len(shape) < 2 or not scalars:
        return 1, scalars
    channels = shape[0]
    together = next((n for n in range(1, channels) if channels % n == 0 and n * scalars >= LEAST * channels), channels)
    return channels // together, together * scalars // channels


@dataclass(frozen=True)
class LossyCodec:
    """One codec for vectors of one layout, float32 [P] <-> uint8 [bytes], both in host memory.

    On the device meta only the sizes are right.
    """

    name: str
    groups: Groups
    dead_zone: float = 1.2
    """Of ternary_entropy: what is nearer to 0 than so many standard deviations of its group is sent as 0."""

    @cached_property
    def _quantiser(self) -> Quantiser:
        return quantiser(self.name, self.dead_zone)

    @cached_property
    def scalars(self) -> int:
        return sum(number * size for number, size in self.groups)

    @property
    def exact(self) -> bool:
        """Whether every payload has `size` bytes; else it has at most so many."""
        return self.name in HALVES or self._quantiser.exact

    @cached_property
    def size(self) -> int:
        """Bytes of a payload."""
        if self.name in HALVES:
            return CHECKSUM + 2 * self.scalars
        return CHECKSUM + self._scale_bytes + self._quantiser.size(self.scalars)

    def encode(self, values: Tensor) -> Tensor:
        """The payload. Raises ValueError where a value is not finite."""
        return self.send(values)[0]

    def send(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The payload, and what decoding gives, for less than that would cost. Raises ValueError as `encode` does."""
        if values.is_meta:
            return values.new_empty(self.size, dtype=torch.uint8), torch.empty_like(values)
        if not all(math.isfinite(end) for end in values.aminmax()):
            raise ValueError(f"values that are not finite cannot be sent as {self.name}")
        body, decoded = self._halved(values) if self.name in HALVES else self._quantised(values)
        checksum = zlib.crc32(body.numpy().data).to_bytes(CHECKSUM, "little")
        return torch.cat([torch.tensor(list(checksum), dtype=torch.uint8), body]), decoded

    def decode(self, payload: Tensor) -> Tensor:
        """Raises ValueError where the payload is not what was encoded."""
        if payload.is_meta:
            return payload.new_empty(self.scalars, dtype=torch.float32)
        data = payload.numpy()
        body = data[CHECKSUM:]
        least = self.size if self.exact else CHECKSUM + self._scale_bytes
        fits = least <= len(data) <= self.size
        if not fits or zlib.crc32(body.data) != int.from_bytes(data[:CHECKSUM].tobytes(), "little"):
            raise ValueError(f"a damaged {self.name} payload of {len(data)} bytes: its checksum or length is wrong")
        if self.name in HALVES:
            return _tensor(body, HALVES[self.name])
        scales = _tensor(body[: self._scale_bytes], torch.bfloat16)
        return self._scaled(scales, torch.from_numpy(self._quantiser.unpack(body[self._scale_bytes :], self.scalars)))

    def _halved(self, values: Tensor) -> tuple[Tensor, Tensor]:
        largest = torch.finfo(HALVES[self.name]).max
        halves = values.clamp(-largest, largest).to(HALVES[self.name])
        return halves.view(torch.uint8), halves.float()

    def _quantised(self, values: Tensor) -> tuple[Tensor, Tensor]:
        codes, scales = torch.empty(self.scalars, dtype=torch.int8), []
        for block, of_block in zip(self._blocks(values), self._blocks(codes), strict=True):
            of_scales, found = self._quantiser.quantise(block)
            of_block.copy_(found)
            scales.append(of_scales)
        halves = torch.cat(scales).bfloat16()
        packed = torch.from_numpy(self._quantiser.pack(codes.numpy()))
        return torch.cat([halves.view(torch.uint8), packed]), self._scaled(halves.float(), codes)

    def _scaled(self, scales: Tensor, codes: Tensor) -> Tensor:
        """scales: float32 [groups]; codes: int8 [scalars]."""
        values = torch.empty(self.scalars)
        of_blocks = scales.split([number for number, _ in self._pieces])
        for block, of_block, scaled in zip(self._blocks(codes), of_blocks, self._blocks(values), strict=True):
            torch.mul(block, of_block[:, None], out=scaled)
        return values

    @cached_property
    def _pieces(self) -> Groups:
        """The groups, so many at once as make a `PIECE`."""
        return tuple(
            (min(step, number - first), size)
            for number, size in self.groups
            for step in [max(1, PIECE // max(1, size))]
            for first in range(0, number, step)
        )

    def _blocks(self, flat: Tensor) -> Iterator[Tensor]:
        pieces = flat.split([number * size for number, size in self._pieces])
        return (piece.view(shape) for piece, shape in zip(pieces, self._pieces, strict=True))

    @property
    def _scale_bytes(self) -> int:
        return 2 * sum(number for number, _ in self.groups)


def payload_part(part: Part, codec: LossyCodec) -> Part:
    """The bytes that a codec makes of a part: a row of so many, or as many items of one byte as there are."""
    if codec.exact:
        return Part(part.kind, codec.size, torch.uint8, shared=part.shared, raw=part.itemsize)
    return Part(part.kind, 1, torch.uint8, ragged=True, raw=part.itemsize, at_most=codec.size)


def _tensor(data: np.ndarray, dtype: torch.dtype) -> Tensor:
    """float32 of these bytes, which may begin where no number of that type may."""
    return torch.from_numpy(data.copy()).view(dtype).float()
