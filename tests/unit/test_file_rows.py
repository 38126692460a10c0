"""A matrix in a file gives what one in memory does."""

import pytest
import torch

from fedstil_mpi.comm.columns import BLOCK, mix
from fedstil_mpi.util.errors import StorageError
from fedstil_mpi.util.file_rows import FileRows
from support.live import resident


def test_it_is_used_as_a_tensor():
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


def test_no_more_is_in_memory_than_what_is_asked_for():
    """A few rows' room, whatever is freed and not given back yet; of a mapping all 200 MB would come in around the columns."""
    found = FileRows(50, 1 << 20)
    before = resident()
    for row in range(len(found)):
        found[row] = torch.full((1 << 20,), float(row))
    for columns in (slice(start, start + 4096) for start in range(0, 1 << 20, 1 << 16)):
        found[:, columns] = found[:, columns] + 1
    assert sum(row[0].item() for row in found) == 50 * 49 / 2 + 50
    assert resident() - before < 50e6
