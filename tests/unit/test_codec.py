import pytest
import torch
from torch import Tensor

from fedstil_mpi.comm.codec import decode, encode, encoded_part
from fedstil_mpi.comm.flat import Part

SPARSE = Part("adaptive", 10, ragged=True, codec="sparse")


def items(*filled: int) -> Tensor:
    """An item for every number: so many values that are not zero, at random places."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.zeros(len(filled), SPARSE.scalars)
    for row, count in zip(rows, filled, strict=True):
        row[torch.randperm(SPARSE.scalars, generator=generator)[:count]] = torch.randn(count, generator=generator)
    return rows


@pytest.mark.parametrize("filled", [(), (0,), (10,), (3, 0, 10, 5, 6, 1)])
def test_what_is_read_is_what_was_written(filled):
    assert torch.equal(decode(SPARSE, encode(SPARSE, items(*filled))), items(*filled))


def test_values_come_back_to_the_bit():
    odd = torch.tensor([[0.0, -0.0, torch.inf, -torch.inf, 1e-45, torch.nan, 3.0, 0.0, 0.0, 0.0]])
    back = decode(SPARSE, encode(SPARSE, odd))
    assert torch.equal(back.abs().view(torch.int32), odd.abs().view(torch.int32))  # only the sign of a zero is lost


@pytest.mark.parametrize(("filled", "size"), [(0, 8), (1, 16), (5, 48), (6, 48), (10, 48)])
def test_eight_bytes_a_value_but_never_more_than_the_dense_item(filled, size):
    assert encode(SPARSE, items(filled)).shape == (size, 1)
    assert encode(SPARSE, items(filled)).dtype == encoded_part(SPARSE).dtype == torch.uint8


def test_without_a_codec_nothing_is_written():
    plain = Part("people", 2, torch.int64, ragged=True)
    rows = torch.tensor([[1, 2], [3, 4]])
    assert encoded_part(plain) is plain
    assert encode(plain, rows) is rows
    assert decode(plain, rows) is rows
