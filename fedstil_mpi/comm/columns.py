"""The P columns of the server's rows in blocks, so that ranks can share them out and get the same bits."""

from itertools import pairwise

from torch import Tensor

BLOCK = 4096
"""Columns that are never parted."""


def share_out(scalars: int, ranks: int, block: int = BLOCK) -> list[slice]:
    """The columns of each rank: whole blocks, in order, as evenly as can be."""
    blocks = -(-scalars // block)
    ends = [min(scalars, block * (blocks * rank // ranks)) for rank in range(ranks + 1)]
    return [slice(*pair) for pair in pairwise(ends)]


def mix(weights: Tensor, rows_KP: Tensor, block: int = BLOCK) -> Tensor:
    """weights [O, K] or [K] @ rows [K, P], block by block: how a library adds up can depend on how many columns there are."""
    mixed = rows_KP.new_empty(*weights.shape[:-1], rows_KP.shape[1])
    for start in range(0, rows_KP.shape[1], block):
        columns = slice(start, start + block)
        mixed[..., columns] = weights @ rows_KP[:, columns]
    return mixed
