"""A matrix in a file gives what one in memory does."""

import pytest
import torch

from fedstil_mpi.comm.columns import BLOCK, mix
from fedstil_mpi.util import file_rows
from fedstil_mpi.util.errors import StorageError
from fedstil_mpi.util.file_rows import FileRows


@pytest.mark.parametrize("resident", [0, file_rows.RESIDENT])
def test_it_is_used_as_a_tensor_whatever_is_let_go_of(resident, monkeypatch):
    monkeypatch.setattr(file_rows, "RESIDENT", resident)
    rows_KP = torch.randn(5, 2 * BLOCK + 3)
    found = FileRows(*rows_KP.shape).filled(rows_KP)
    assert (len(found), found.shape, found.dtype) == (5, rows_KP.shape, rows_KP.dtype)
    assert all(torch.equal(row, expected) for row, expected in zip(found, rows_KP, strict=True))
    assert torch.equal(found[[3, 1]], rows_KP[[3, 1]])
    found[:, 7:9] = 2 * rows_KP[:, 7:9]
    rows_KP[:, 7:9] *= 2
    for weights in (torch.randn(5), torch.randn(2, 5)):
        assert torch.equal(mix(weights, found), mix(weights, rows_KP))


def test_bytes_and_nothing():
    found = FileRows(2, 3, torch.uint8).filled(torch.arange(6, dtype=torch.uint8).view(2, 3))
    assert found[1].tolist() == [3, 4, 5]
    assert [list(row) for row in FileRows(2, 0)] == [[], []]  # of a rank that has no columns


def test_that_the_disk_is_full_is_said_at_once():
    with pytest.raises(StorageError):
        FileRows(1 << 20, 1 << 40)
