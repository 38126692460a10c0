"""The P columns of the server's rows in blocks, so that ranks can share them out and get the same bits."""

from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from fedstil_mpi.util.file_rows import FileRows

BLOCK = 4096
"""Columns that are never parted."""


def share_out(scalars: int, ranks: int, block: int = BLOCK) -> list[slice]:
    """The columns of each rank: whole blocks, in order, as evenly as can be."""
    blocks = -(-scalars // block)
    ends = [min(scalars, block * (blocks * rank // ranks)) for rank in range(ranks + 1)]
    return [slice(*pair) for pair in pairwise(ends)]


def blocks(scalars: int, block: int = BLOCK) -> Iterator[slice]:
    """All columns, in order: what is done to one block after the other needs temporaries of one block alone."""
    return (slice(start, start + block) for start in range(0, scalars, block))


def mix(weights: Tensor, rows_KP: Tensor | FileRows) -> Tensor:
    """weights [O, K] or [K] @ rows [K, P], block by block: how a library adds up can depend on how many columns there are."""
    mixed = weights.new_empty(*weights.shape[:-1], rows_KP.shape[1])
    for columns in blocks(rows_KP.shape[1]):
        mixed[..., columns] = weights @ rows_KP[:, columns]
    return mixed
