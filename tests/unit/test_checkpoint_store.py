"""A checkpoint holds all files of the run, of which the unchanged ones are the last checkpoint's under a second name."""

import os

import pytest

from fedstil_mpi.checkpoints import files
from fedstil_mpi.checkpoints.store import CheckpointStore


def states(checkpoint):
    return {name: checkpoint.read(name) for name in checkpoint.names("")}


def kept(folder, *rounds):
    """A store with checkpoints, each written by one rank; rounds: the clients' numbers that it wrote, by name."""
    store = CheckpointStore(folder, "settings")
    for round, written in enumerate(rounds, 1):
        store.free_space()
        store.write(0, round, ((name, files.copy({"number": number})) for name, number in written.items()))
        store.commit(1, round)
    return store


def test_what_was_not_written_again_is_the_file_of_the_checkpoint_before(tmp_path):
    store = kept(tmp_path, {"client-0": 1, "client-1": 1}, {"client-1": 2}, {"client-2": 3})
    assert states(store.newest()) == {"client-0": {"number": 1}, "client-1": {"number": 2}, "client-2": {"number": 3}}
    before, last = (store.folder / f"{round:05d}" for round in (2, 3))
    for name in ("client-0.safetensors", "client-1.safetensors"):
        assert os.path.samefile(before / name, last / name)
    assert states(store.at(2)) == {"client-0": {"number": 1}, "client-1": {"number": 2}}


def test_where_files_have_one_name_they_are_copied(tmp_path, monkeypatch):
    def refuse(*names):
        raise OSError

    monkeypatch.setattr(os, "link", refuse)
    store = kept(tmp_path, {"client-0": 1}, {"client-1": 2})
    assert states(store.newest()) == {"client-0": {"number": 1}, "client-1": {"number": 2}}


@pytest.mark.parametrize("learning", [False, True])
def test_the_start_and_what_a_round_had_learned_are_no_part_of_what_follows(tmp_path, learning):
    store = CheckpointStore(tmp_path, "settings")
    before = 1 if learning else 0
    for round in {0, before}:
        store.write(0, round, [("before", files.copy({}))])
        store.commit(1, round)
    after = {"round": 1, "learning": learning}
    store.write(0, snapshots=[("after", files.copy({}))], **after)
    store.commit(1, **after)
    assert store.at(**after).names("") == ["after"]
