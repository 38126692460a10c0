"""Mixing matrices are kept row by row, deflated: nothing is lost, and what is alike takes no space."""

import h5py
import numpy as np
import pytest
import torch

from fedstil_mpi.comm.ledger import Ledger
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.results.writing import mixing_rows
from fedstil_mpi.results.writing.record import Record
from fedstil_mpi.results.writing.results_file import add_coordinates, add_relevance
from fedstil_mpi.results.writing.run_folder import RunFolder
from fedstil_mpi.util.state_tree import flatten, unflatten

CLIENTS = 5


@pytest.fixture
def told(tmp_path):
    """A record that was told of two rounds, of the second in two parts; and the rows it was told."""
    made = Record(RunFolder(tmp_path), Schedule(1, CLIENTS, 1, 2, 2, CLIENTS, 2), Ledger(), [], ["client"])
    rows = {round: torch.rand(CLIENTS, CLIENTS) for round in (2, 3)}
    made.relevance(2, [1, 4], rows[2][[1, 4]])
    for part in ([0, 2, 4], [1, 3]):
        made.relevance(3, part, rows[3][part])
    made.relevance(1, [0], None)
    return made, rows


def read(record, path):
    with h5py.File(path, "w") as file:
        add_coordinates(file, record)
        add_relevance(file.create_group("relevance"), record)
    with h5py.File(path) as file:
        return file["relevance/rounds"][()].tolist(), file["relevance/matrices"][()]


def test_other_programs_read_the_rows_that_were_told_and_nothing_else(told, tmp_path):
    record, rows = told
    rounds, matrices = read(record, tmp_path / "file.h5")
    expected = np.full((2, CLIENTS, CLIENTS), np.nan, np.float32)
    expected[0, [1, 4]], expected[1] = rows[2][[1, 4]], rows[3]
    assert rounds == [2, 3]
    np.testing.assert_array_equal(matrices, expected)


def test_a_checkpoint_holds_all_of_them(told, tmp_path):
    record, _ = told
    again = Record(record.folder, record.schedule, Ledger(), [], ["client"])
    for since in (0, 2):  # as two checkpoints
        again.restore(unflatten(*flatten(record.state(since))))
    assert again.relevances == record.relevances


def test_a_row_of_thousands_of_clients_that_count_alike_takes_a_hundredth():
    rows = np.full((2, 10_000), 1e-4, np.float32)
    rows[1, ::1000] = np.linspace(0.01, 0.1, 10)
    assert all(len(packed) < rows[0].nbytes / 100 for packed in mixing_rows.pack([3, 7], rows).values())
