"""What lossy codecs make of numbers: a scale for each group of them, small integers (codes), and few bits of those.

With error feedback at the sender (see `methods.aids.compression`) the scales of the ternary codes are the least-squares
ones: <x, q> / |q|^2. Where several codes share a byte they come from as many equal stretches of the vector, so that all
arithmetic is on neighbours.
"""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NEGLIGIBLE = 1e-18
"""Nearly the root of the smallest normal float32."""
TINY = 1e-38
"""About the smallest normal float32."""


@dataclass(frozen=True)
class Quantiser:
    """What a codec makes of a group, and how the codes are packed."""

    quantise: Callable[[Tensor], tuple[Tensor, Tensor]]
    """float32 [groups, size] -> scales [groups], codes [groups, size]: about scales[:, None] * codes."""
    pack: Callable[[np.ndarray], np.ndarray]
    """int8 codes [n] -> uint8 [bytes]."""
    unpack: Callable[[np.ndarray, int], np.ndarray]
    """The inverse; the second argument is n."""
    size: Callable[[int], int]
    """Bytes of n codes: exactly, or of an entropy code at most."""
    exact: bool = True


# -- codes -----------------------------------------------------------------------------------------------------------


def _integers(bits: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    top = 2 ** (bits - 1) - 1

    def quantise(block: Tensor) -> tuple[Tensor, Tensor]:
        scales = (block.abs().amax(1) / top).bfloat16().float()
        steps = torch.where(scales > 0, scales, 1.0)
        return scales, (block / steps[:, None]).round_().clamp_(-top, top)

    return quantise


def _ternary(threshold: Callable[[Tensor], Tensor]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """0 for what is as near to 0 as the threshold of its group, else the sign: by rounding, half the time of two comparisons."""

    def quantise(block: Tensor) -> tuple[Tensor, Tensor]:
        codes = (block / (2 * threshold(block)).clamp(min=TINY)).round_().clamp_(-1, 1)
        return (codes * block).sum(1) / codes.abs().sum(1).clamp(min=1), codes

    return quantise


def _edge_of_dead_zone(block: Tensor, dead_zone: float) -> Tensor:
    """Beyond what there is, where squares are so small that they are no numbers any more."""
    deviations = block.square().mean(1, keepdim=True).sqrt()
    return torch.where(deviations > NEGLIGIBLE, dead_zone * deviations, math.inf)


def _sign(block: Tensor) -> tuple[Tensor, Tensor]:
    return block.abs().mean(1), torch.copysign(torch.ones(1), block)


# -- bytes -----------------------------------------------------------------------------------------------------------


def _pack_int8(codes: np.ndarray) -> np.ndarray:
    return codes.view(np.uint8)


def _unpack_int8(data: np.ndarray, n: int) -> np.ndarray:
    return data.view(np.int8)


def _pack_int4(codes: np.ndarray) -> np.ndarray:
    """Two to a byte."""
    low, high = _stretches(codes, 2, 8)
    return low | high << 4


def _unpack_int4(data: np.ndarray, n: int) -> np.ndarray:
    return _joined([data & 15, data >> 4], n, 8)


def _pack_int3(codes: np.ndarray) -> np.ndarray:
    """The lowest bits of all, then the middle ones, then the highest."""
    (digits,) = _stretches(codes, 1, 4)
    return np.concatenate([np.packbits(digits & bit) for bit in (1, 2, 4)])


def _unpack_int3(data: np.ndarray, n: int) -> np.ndarray:
    low, middle, high = np.unpackbits(data).reshape(3, -1)
    return _joined([low | middle << 1 | high << 2], n, 4)


def _pack_ternary(codes: np.ndarray) -> np.ndarray:
    """Five to a byte, as digits of a number to the base 3."""
    packed, *others = _stretches(codes, 5, 1)
    for digits in others:
        packed *= 3
        packed += digits
    return packed


def _unpack_ternary(data: np.ndarray, n: int) -> np.ndarray:
    digits, rest = [], data
    for _ in range(5):
        higher = rest // 3
        digits.append(rest - 3 * higher)
        rest = higher
    return _joined(digits[::-1], n, 1)


def _stretches(codes: np.ndarray, number: int, offset: int) -> np.ndarray:
    """The codes, and zeros behind them, as so many rows of equal length, uint8; the offset makes them numbers from 0."""
    rows = np.full((number, -(-len(codes) // number)), offset, np.int8)
    rows.reshape(-1)[: len(codes)] += codes
    return rows.view(np.uint8)


def _joined(rows: list[np.ndarray], n: int, offset: int) -> np.ndarray:
    """The inverse."""
    codes = np.concatenate(rows)[:n].view(np.int8)
    codes -= offset
    return codes


def _pack_sign(codes: np.ndarray) -> np.ndarray:
    return np.packbits(codes > 0)


def _unpack_sign(data: np.ndarray, n: int) -> np.ndarray:
    return np.unpackbits(data, count=n).view(np.int8) * 2 - 1


def _pack_entropy(codes: np.ndarray) -> np.ndarray:
    """Where the codes are not 0, as Huffman codes of eight at a time, and the signs of those."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
    chosen = codes != 0
    places = deflate.compress(np.packbits(chosen).data) + deflate.flush()
    signs = np.packbits(codes[np.flatnonzero(chosen)] > 0)  # much faster than by a mask
    return np.concatenate([np.frombuffer(places, np.uint8), signs])


def _unpack_entropy(data: np.ndarray, n: int) -> np.ndarray:
    inflate = zlib.decompressobj(-15)
    places = np.unpackbits(np.frombuffer(inflate.decompress(data.data, -(-n // 8) + 1), np.uint8), count=n)
    codes, chosen = places.view(np.int8), np.flatnonzero(places.view(bool))
    signs = np.frombuffer(inflate.unused_data, np.uint8)
    codes[chosen] = np.unpackbits(signs, count=len(chosen)).astype(np.int8) * 2 - 1
    return codes


def _entropy_bound(n: int, dead_zone: float) -> int:
    """By Chebyshev at most n / dead_zone^2 are farther out; deflate never adds more than this to what it is given."""
    places, chosen = -(-n // 8), min(n, math.ceil(n / dead_zone**2))
    return places + 5 * (places // 16383 + 1) + 8 + -(-chosen // 8)


QUANTISERS = {
    "int8": Quantiser(_integers(8), _pack_int8, _unpack_int8, lambda n: n),
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


def quantiser(name: str, dead_zone: float) -> Quantiser:
    if name != "ternary_entropy":
        return QUANTISERS[name]
    return Quantiser(
        _ternary(lambda block: _edge_of_dead_zone(block, dead_zone)),
        _pack_entropy,
        _unpack_entropy,
        lambda n: _entropy_bound(n, dead_zone),
        exact=False,
    )
