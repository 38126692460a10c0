"""One program at a time holds a folder; who has died does not hold it for ever."""

import errno
import os
import re
import threading
import time

import pytest

from fedstil_mpi.util import lease
from fedstil_mpi.util.errors import InputError, StorageError
from fedstil_mpi.util.lease import NAME, held


def test_another_program_is_refused_and_writes_nothing(tmp_path):
    folder = tmp_path / "run"
    with held(folder):
        before = (folder / NAME).read_bytes()
        with (
            pytest.raises(InputError, match=f"in use by process {os.getpid()} on .*; wait for its end") as refused,
            held(folder),
        ):
            pass
        assert refused.value.code == 2
        assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [(NAME, before)]
    assert not folder.exists()  # it was made for the lease alone


def test_what_is_in_the_folder_stays(tmp_path):
    with held(tmp_path):
        (tmp_path / "file").touch()
    with held(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def left_by_a_dead_process(folder):
    if child := os.fork():
        os.waitpid(child, 0)
        assert (folder / NAME).exists()
        return
    with held(folder):
        os._exit(0)


def test_a_dead_process_holds_nothing(tmp_path):
    left_by_a_dead_process(tmp_path)
    began = time.monotonic()
    with held(tmp_path):
        assert time.monotonic() - began < 2
        with pytest.raises(InputError, match="in use"), held(tmp_path):
            pass
    assert not list(tmp_path.iterdir())


def test_a_waiting_program_gets_the_folder_when_it_is_free(tmp_path):
    first = held(tmp_path)
    first.__enter__()
    timer = threading.Timer(0.3, first.__exit__, [None, None, None])
    timer.start()
    with held(tmp_path, patience=20) as check:
        check()
    timer.join()


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The lease of a process on another host, of which nobody here knows whether it lives."""
    monkeypatch.setattr(lease, "LASTS", 0.5)
    left_by_a_dead_process(tmp_path)
    file = tmp_path / NAME
    file.write_text(re.sub("host=.*", "host=elsewhere", file.read_text()))
    return file


def test_a_lease_of_another_host_ends_when_it_is_not_refreshed(tmp_path, elsewhere):
    began = time.monotonic()
    with held(tmp_path, patience=20):
        assert 0.5 < time.monotonic() - began < 10


def test_a_lease_of_another_host_is_respected_while_it_is_refreshed(tmp_path, elsewhere):
    done = threading.Event()

    def refresh():
        while not done.wait(0.05):
            os.utime(elsewhere)

    thread = threading.Thread(target=refresh)
    thread.start()
    with pytest.raises(InputError, match="on elsewhere"), held(tmp_path, patience=1.5):
        pass
    done.set()
    thread.join()


@pytest.mark.parametrize("how", ["removed", "renamed", "taken over"])
def test_who_has_lost_the_folder_learns_of_it(tmp_path, how):
    folder = tmp_path / "run"
    with held(folder) as check:
        check()
        if how == "renamed":
            folder.rename(tmp_path / "other")
        elif how == "removed":
            (folder / NAME).unlink()
            folder.rmdir()
        else:
            (folder / NAME).write_text("token=another\n")
        with pytest.raises(StorageError, match="go on with --resume") as lost:
            check()
        assert lost.value.code == 74


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "file/run"])
def test_a_folder_that_cannot_be_made(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made") as refused, held(tmp_path / name):
        pass
    assert refused.value.code == 2


def test_a_disk_that_takes_no_lease(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(lease.SoftFileLease, "acquire", full)
    with pytest.raises(StorageError, match="quota"), held(tmp_path):
        pass
