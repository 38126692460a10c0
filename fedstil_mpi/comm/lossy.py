"""Lossy codecs for weights and how far they moved: few bits a scalar, and a scale for each output channel.

A payload is the CRC-32 of the rest, the scales (bfloat16), and the codes. With error feedback at the sender (see
`methods.aids.compression`) the scales of the ternary codes are the least-squares ones: <x, q> / |q|^2.
"""

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fedstil_mpi.comm.flat import Layout, Part

LEAST = 64
"""Scalars that share a scale at least, so that scales cost at most a quarter of a bit a scalar."""
CHECKSUM = 4
"""Bytes of a payload's CRC-32."""
NEGLIGIBLE = 1e-18
"""Nearly the root of the smallest normal float32."""
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
class Quantiser:
    """What a codec makes of a group, and how the codes are packed."""

    quantise: Callable[[Tensor], tuple[Tensor, Tensor]]
    """float32 [groups, size] -> scales [groups], codes [groups, size]: about scales[:, None] * codes."""
    pack: Callable[[np.ndarray], bytes]
    """int8 codes [n] -> bytes."""
    unpack: Callable[[bytes, int], np.ndarray]
    """The inverse; the second argument is n."""
    size: Callable[[int], int]
    """Bytes of n codes: exactly, or of an entropy code at most."""
    exact: bool = True


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
        return _quantiser(self.name, self.dead_zone)

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
        payload = np.frombuffer(zlib.crc32(body).to_bytes(CHECKSUM, "little") + body, np.uint8).copy()
        return torch.from_numpy(payload), decoded

    def decode(self, payload: Tensor) -> Tensor:
        """Raises ValueError where the payload is not what was encoded."""
        if payload.is_meta:
            return payload.new_empty(self.scalars, dtype=torch.float32)
        data = payload.numpy().tobytes()
        body = data[CHECKSUM:]
        least = self.size if self.exact else CHECKSUM + self._scale_bytes
        fits = least <= len(data) <= self.size
        if not fits or zlib.crc32(body) != int.from_bytes(data[:CHECKSUM], "little"):
            raise ValueError(f"a damaged {self.name} payload of {len(data)} bytes: its checksum or length is wrong")
        if self.name in HALVES:
            return _tensor(body, HALVES[self.name])
        scales = _tensor(body[: self._scale_bytes], torch.bfloat16)
        return self._scaled(scales, torch.from_numpy(self._quantiser.unpack(body[self._scale_bytes :], self.scalars)))

    def _halved(self, values: Tensor) -> tuple[bytes, Tensor]:
        halves = values.to(HALVES[self.name])
        if halves.isinf().any():
            raise ValueError(f"{values.abs().max():g} is too large for {self.name}")
        return _bytes(halves), halves.float()

    def _quantised(self, values: Tensor) -> tuple[bytes, Tensor]:
        quantised = [self._quantiser.quantise(block) for block in self._blocks(values)]
        codes = torch.cat([codes.to(torch.int8).view(-1) for _, codes in quantised])
        scales = torch.cat([scales for scales, _ in quantised]).bfloat16()
        return _bytes(scales) + self._quantiser.pack(codes.numpy()), self._scaled(scales.float(), codes)

    def _scaled(self, scales: Tensor, codes: Tensor) -> Tensor:
        """scales: float32 [groups]; codes: int8 [scalars]."""
        values = torch.empty(self.scalars)
        of_blocks = scales.split([number for number, _ in self.groups])
        for block, of_block, scaled in zip(self._blocks(codes), of_blocks, self._blocks(values), strict=True):
            torch.mul(block, of_block[:, None], out=scaled)
        return values

    def _blocks(self, flat: Tensor) -> Iterator[Tensor]:
        pieces = flat.split([number * size for number, size in self.groups])
        return (piece.view(shape) for piece, shape in zip(pieces, self.groups, strict=True))

    @property
    def _scale_bytes(self) -> int:
        return 2 * sum(number for number, _ in self.groups)


def payload_part(part: Part, codec: LossyCodec) -> Part:
    """The bytes that a codec makes of a part: a row of so many, or as many items of one byte as there are."""
    if codec.exact:
        return Part(part.kind, codec.size, torch.uint8, shared=part.shared, raw=part.itemsize)
    return Part(part.kind, 1, torch.uint8, ragged=True, raw=part.itemsize, at_most=codec.size)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.view(torch.uint8).numpy().tobytes()


def _tensor(data: bytes, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, np.uint8).copy()).view(dtype).float()


# -- codes -----------------------------------------------------------------------------------------------------------


def _integers(bits: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    top = 2 ** (bits - 1) - 1

    def quantise(block: Tensor) -> tuple[Tensor, Tensor]:
        scales = (block.abs().amax(1) / top).bfloat16().float()
        steps = torch.where(scales > 0, scales, 1.0)
        return scales, (block / steps[:, None]).round_().clamp_(-top, top)

    return quantise


def _ternary(threshold: Callable[[Tensor], Tensor]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def quantise(block: Tensor) -> tuple[Tensor, Tensor]:
        least = threshold(block)
        codes = ((block > least).view(torch.int8) - (block < -least).view(torch.int8)).float()
        return (codes * block).sum(1) / codes.abs().sum(1).clamp(min=1), codes

    return quantise


def _edge_of_dead_zone(block: Tensor, dead_zone: float) -> Tensor:
    """Beyond what there is, where squares are so small that they are no numbers any more."""
    deviations = block.square().mean(1, keepdim=True).sqrt()
    return torch.where(deviations > NEGLIGIBLE, dead_zone * deviations, math.inf)


def _sign(block: Tensor) -> tuple[Tensor, Tensor]:
    return block.abs().mean(1), (block < 0).to(torch.int8).mul_(-2).add_(1)


# -- bytes -----------------------------------------------------------------------------------------------------------


def _pack_int4(codes: np.ndarray) -> bytes:
    """Two to a byte, the first in the lower half."""
    halves = np.zeros(len(codes) + len(codes) % 2, np.uint8)
    halves[: len(codes)] = codes + 8
    return (halves[0::2] | halves[1::2] << 4).tobytes()


def _unpack_int4(data: bytes, n: int) -> np.ndarray:
    packed = np.frombuffer(data, np.uint8)
    return np.stack([(packed & 15).astype(np.int8) - 8, (packed >> 4).astype(np.int8) - 8], 1).reshape(-1)[:n]


def _pack_int3(codes: np.ndarray) -> bytes:
    """Eight to three bytes, the first in the lowest bits."""
    words = np.zeros(-(-len(codes) // 8) * 8, np.uint8)
    words[: len(codes)] = codes + 4
    packed = sum(words[place::8].astype(np.uint32) << 3 * place for place in range(8))
    return np.asarray(packed, "<u4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()


def _unpack_int3(data: bytes, n: int) -> np.ndarray:
    words = np.zeros((len(data) // 3, 4), np.uint8)
    words[:, :3] = np.frombuffer(data, np.uint8).reshape(-1, 3)
    packed = words.view("<u4")[:, 0]
    return np.stack([(packed >> 3 * place & 7).astype(np.int8) - 4 for place in range(8)], 1).reshape(-1)[:n]


POWERS = np.array([1, 3, 9, 27, 81], np.uint8)
DIGITS = np.stack([np.arange(243, dtype=np.uint8) // power % 3 for power in POWERS], 1).astype(np.int8) - 1
"""Byte -> five ternary digits, -1, 0 or 1."""


def _pack_ternary(codes: np.ndarray) -> bytes:
    digits = np.zeros(-(-len(codes) // 5) * 5, np.uint8)
    digits[: len(codes)] = codes + 1
    return sum(digits[place::5] * power for place, power in enumerate(POWERS)).tobytes()


def _unpack_ternary(data: bytes, n: int) -> np.ndarray:
    return DIGITS[np.frombuffer(data, np.uint8)].reshape(-1)[:n]


def _pack_sign(codes: np.ndarray) -> bytes:
    return np.packbits(codes > 0).tobytes()


def _unpack_sign(data: bytes, n: int) -> np.ndarray:
    return np.unpackbits(np.frombuffer(data, np.uint8), count=n).astype(np.int8) * 2 - 1


def _pack_entropy(codes: np.ndarray) -> bytes:
    """Where the codes are not 0, as Huffman codes of eight at a time, and the signs of those."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
    places = deflate.compress(np.packbits(codes != 0).tobytes()) + deflate.flush()
    return places + np.packbits(codes[np.flatnonzero(codes != 0)] > 0).tobytes()  # much faster than by a mask


def _unpack_entropy(data: bytes, n: int) -> np.ndarray:
    inflate = zlib.decompressobj(-15)
    places = np.unpackbits(np.frombuffer(inflate.decompress(data, -(-n // 8) + 1), np.uint8), count=n)
    codes, chosen = places.astype(np.int8), np.flatnonzero(places.view(bool))
    signs = np.frombuffer(inflate.unused_data, np.uint8)
    codes[chosen] = np.unpackbits(signs, count=len(chosen)).astype(np.int8) * 2 - 1
    return codes


def _entropy_bound(n: int, dead_zone: float) -> int:
    """By Chebyshev at most n / dead_zone^2 are farther out; deflate never adds more than this to what it is given."""
    places, chosen = -(-n // 8), min(n, math.ceil(n / dead_zone**2))
    return places + 5 * (places // 16383 + 1) + 8 + -(-chosen // 8)


QUANTISERS = {
    "int8": Quantiser(
        _integers(8), lambda codes: codes.tobytes(), lambda data, n: np.frombuffer(data, np.int8).copy(), lambda n: n
    ),
    "int4": Quantiser(_integers(4), _pack_int4, _unpack_int4, lambda n: -(-n // 2)),
    "int3": Quantiser(_integers(3), _pack_int3, _unpack_int3, lambda n: 3 * -(-n // 8)),
    "ternary": Quantiser(
        _ternary(lambda block: 0.7 * block.abs().mean(1, keepdim=True)),
        _pack_ternary,
        _unpack_ternary,
        lambda n: -(-n // 5),
    ),
    "sign": Quantiser(_sign, _pack_sign, _unpack_sign, lambda n: -(-n // 8)),
}
NAMES = (*HALVES, "int8", "int4", "int3", "ternary", "ternary_entropy", "sign")


def _quantiser(name: str, dead_zone: float) -> Quantiser:
    if name != "ternary_entropy":
        return QUANTISERS[name]
    return Quantiser(
        _ternary(lambda block: _edge_of_dead_zone(block, dead_zone)),
        _pack_entropy,
        _unpack_entropy,
        lambda n: _entropy_bound(n, dead_zone),
        exact=False,
    )
