"""A rank that fails in the midst of training takes the whole job along, and says where it was."""

import platform
import re
import time

import pytest

from support import TINY
from support.launch import SCRIPTS, ULFM, lines_of, mpirun, survivors
from support.results import different, results

HOST = platform.node()


def play(how, folder, *overrides, options=()):
    """Run until client 2 fails; returns how mpirun ended, and how many seconds after the failure."""
    config = [TINY, f"output={folder}", *overrides]
    done = mpirun(3, [SCRIPTS / "fail_in_training.py", how, folder, *config], timeout=300, options=options)
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
    where = f"rank 2 on {HOST} failed (client 2, task 1, round 2)"
    assert lines_of(done.stderr) == [f"fedstil_mpi: {where}: {error}"]
    assert "Traceback" in done.stderr
    assert not survivors(tmp_path / "ranks")
    assert not (tmp_path / "tiny" / "results.h5").exists()


def test_kill_in_training(tmp_path):
    """And the run that is resumed gives what one gives that was not disturbed, to the last bit."""
    done, seconds = play("kill", tmp_path)
    assert seconds < 10
    assert done.returncode != 0
    assert not survivors(tmp_path / "ranks")
    assert not (tmp_path / "tiny" / "results.h5").exists()

    for name, ranks in (("tiny", 2), ("whole", 1)):
        config = [TINY, f"output={tmp_path}", f"name={name}", "--resume"]
        resumed = mpirun(ranks, ["-m", "fedstil_mpi.run", *config], timeout=300)
        assert resumed.returncode == 0, resumed.stderr
        assert ("resumes after round 1" in resumed.stdout) == (name == "tiny")
    assert not different(results(tmp_path / "tiny"), results(tmp_path / "whole"))


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ULFM], ids=["plain", "ulfm"])
def test_stopped_rank(options, tmp_path):
    """It is waited for only so long, and does not outlive the job."""
    done, seconds = play("stop", tmp_path, "exchange.timeout=8", options=options)
    assert seconds < 25
    assert done.returncode == 1
    lines = lines_of(done.stderr)
    assert 1 <= len(lines) <= 2
    for line in lines:
        assert re.match(rf"fedstil_mpi: rank [01] on {HOST} failed \(round 2\): waited 8 s for \w+", line)
    assert "Traceback" not in done.stderr
    assert not survivors(tmp_path / "ranks")
    assert (tmp_path / "tiny" / "checkpoints" / "00001" / "checkpoint.json").exists()


@pytest.mark.slow
def test_killed_rank_of_a_job_that_could_but_is_not_to_go_on(tmp_path):
    done, seconds = play("kill", tmp_path, options=ULFM)
    assert seconds < 10
    assert done.returncode == 1
    lines = lines_of(done.stderr)
    assert lines
    assert all(line.endswith(": another rank has died") for line in lines)
    assert not survivors(tmp_path / "ranks")


FULL_FOR_RANK_1 = """
import os, resource, sys
from fedstil_mpi.run import main
if os.environ["OMPI_COMM_WORLD_RANK"] == "1":
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
main(sys.argv[1:])
"""


def test_a_disk_without_room_for_a_checkpoint_ends_the_run_until_there_is(tmp_path):
    config = [TINY, f"output={tmp_path}"]
    done = mpirun(3, ["-c", FULL_FOR_RANK_1, *config])
    assert done.returncode == 2, done.stderr
    (line,) = lines_of(done.stderr)
    assert re.search(
        r"checkpoints/00001\.partial/client-0\.safetensors cannot be written .*File too large.*--resume", line
    )
    resumed = mpirun(1, ["-m", "fedstil_mpi.run", *config, "--resume"])
    assert resumed.returncode == 0, resumed.stderr
    assert (tmp_path / "tiny" / "complete").exists()
