"""A rank that fails in the midst of training takes the whole job along, and says where it was."""

import platform
import time
from pathlib import Path

import pytest
from launch import mpirun
from test_world import lines_of, survivors

HERE = Path(__file__).parent


def play(how, folder):
    """Run until client 2 fails; returns how mpirun ended, and how many seconds after the failure."""
    config = [HERE / "tiny.yaml", f"output={folder}"]
    done = mpirun(3, [HERE / "scripts" / "fail_in_training.py", how, folder, *config], timeout=300)
    ended = time.time()
    assert (folder / "failed").exists(), done.stderr
    return done, ended - float((folder / "failed").read_text())


@pytest.mark.parametrize(
    ("how", "code", "error"),
    [("exception", 1, "ZeroDivisionError: no people"), ("exit3", 3, "SystemExit: 3")],
)
def test_exception_in_training(how, code, error, tmp_path):
    done, seconds = play(how, tmp_path)
    assert seconds < 10
    assert done.returncode == code
    where = f"rank 2 on {platform.node()} failed (client 2, task 1, round 2)"
    assert lines_of(done.stderr) == [f"fedstil_mpi: {where}: {error}"]
    assert "Traceback" in done.stderr
    assert not survivors(tmp_path / "ranks")
    assert not (tmp_path / "tiny" / "results.h5").exists()


def test_kill_in_training(tmp_path):
    done, seconds = play("kill", tmp_path)
    assert seconds < 10
    assert done.returncode != 0
    assert not survivors(tmp_path / "ranks")
    assert not (tmp_path / "tiny" / "results.h5").exists()
