"""HDF5 files are parsed only when they are what was written, and never touched by libhdf5 on the disk."""

import random

import h5py
import numpy as np
import pytest

from fedstil_mpi.util import hdf5
from fedstil_mpi.util.errors import InputError

TRIALS = 500


@pytest.fixture
def path(tmp_path):
    def fill(file):
        file["group/numbers"] = np.arange(5)
        file.attrs["names"] = ["a", "b"]

    path = tmp_path / "results.h5"
    path.write_bytes(hdf5.made(fill))
    return path


def numbers(path):
    with hdf5.parsed(path, "results") as file:
        return file["group/numbers"][()].tolist()


def test_what_was_written_is_read_by_any_program(path):
    assert numbers(path) == [0, 1, 2, 3, 4]
    assert hdf5.has_checksum(path)
    with h5py.File(path) as file:
        assert file["group/numbers"][()].tolist() == [0, 1, 2, 3, 4]


def test_equal_contents_give_equal_bytes(path):
    assert hdf5.made(lambda file: file.create_group("a")) == hdf5.made(lambda file: file.create_group("a"))


def test_damaged_bytes_are_never_parsed(path, monkeypatch):
    sound, draw = path.read_bytes(), random.Random(1)
    monkeypatch.setattr(hdf5.h5py, "File", lambda *_: pytest.fail("it was parsed"))
    for _ in range(TRIALS):
        data = bytearray(sound)
        for _ in range(draw.randint(1, 4)):
            start = draw.randrange(len(data))
            data[start : start + draw.choice([0, 1, 40])] = draw.randbytes(draw.choice([1, 4, 40]))
        if data == sound:
            continue
        path.write_bytes(data)
        with pytest.raises(InputError, match="damaged") as refused:
            numbers(path)
        assert "remove" not in str(refused.value)


@pytest.mark.parametrize("data", [b"", b"no HDF5", b"fedstil_mpi: SHA-256 of what follows these 512 bytes: "])
def test_other_files_are_refused(path, data):
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged, or holds no results"):
        numbers(path)


def test_a_file_of_an_older_version_has_no_checksum_and_is_read(path):
    with h5py.File(path, "w") as file:
        file["group/numbers"] = [7]
    assert numbers(path) == [7]
    assert not hdf5.has_checksum(path)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(InputError, match="does not hold results"):
        numbers(path)
