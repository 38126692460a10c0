"""A rank that fails in the midst of training takes the whole job along, and says where it was.

That a run that is killed goes on as if it had not been is in test_resume.py, how the ranks of any job end in mpi/test_world.py.
"""

import platform
import re
import time

import pytest

from support import SMALL, TINY
from support.launch import SCRIPTS, ULFM, lines_of, mpirun, survivors

HOST = platform.node()


def play(how, folder, *overrides, options=()):
    """Run a server and a rank of clients until client 2 fails; returns how mpirun ended, some seconds after the failure."""
    script = [SCRIPTS / "fail_in_training.py", how, folder, TINY, SMALL, f"output={folder}", *overrides]
    done = mpirun(2, script, timeout=300, options=options)
    ended = time.time()
    assert (folder / "failed").exists(), done.stderr
    assert not survivors(folder / "ranks", 2)
    assert not (folder / "tiny" / "results.h5").exists()
    return done, ended - float((folder / "failed").read_text())


@pytest.mark.parametrize(
    ("how", "code", "error"),
    [
        ("exception", 1, "ZeroDivisionError: no people"),
        pytest.param("exit3", 3, "SystemExit: 3", marks=pytest.mark.long),
    ],
)
def test_exception_in_training(how, code, error, tmp_path):
    done, seconds = play(how, tmp_path)
    assert seconds < 10
    assert done.returncode == code
    where = f"rank 1 on {HOST} failed (client 2, task 1, round 2)"
    assert lines_of(done.stderr) == [f"fedstil_mpi: {where}: {error}"]
    assert "Traceback" in done.stderr


@pytest.mark.slow
def test_a_client_that_diverges_ends_all_ranks_with_one_line(tmp_path):
    done, _ = play("diverge", tmp_path)
    assert done.returncode == 2
    (line,) = lines_of(done.stderr)
    assert line.startswith("fedstil_mpi: client 2, round 2, step 2: the loss is nan; training has diverged: ")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), pytest.param(ULFM, marks=pytest.mark.long)], ids=["plain", "ulfm"])
def test_stopped_rank(options, tmp_path):
    """It is waited for only so long, and does not outlive the job."""
    done, seconds = play("stop", tmp_path, "exchange.timeout=8", options=options)
    assert seconds < 25
    assert done.returncode == 1
    (line,) = lines_of(done.stderr)
    assert re.match(rf"fedstil_mpi: rank 0 on {HOST} failed \(round 2\): waited 8 s for \w+", line)
    assert "Traceback" not in done.stderr
    assert (tmp_path / "tiny" / "checkpoints" / "00001" / "checkpoint.json").exists()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("options", [(), ULFM], ids=["plain", "ulfm"])
def test_killed_rank(options, tmp_path):
    """Also of a job that could but is not to go on."""
    done, seconds = play("kill", tmp_path, options=options)
    assert seconds < 10
    assert done.returncode == 1 if options else done.returncode != 0
    lines = lines_of(done.stderr)
    assert lines or not options
    assert all(line.endswith(": another rank has died") for line in lines)


FULL_FOR_RANK_1 = """
import os, resource, sys
from fedstil_mpi.run import main
if os.environ["OMPI_COMM_WORLD_RANK"] == "1":
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
main(sys.argv[1:])
"""


def test_a_disk_without_room_for_a_checkpoint_ends_the_run(tmp_path):
    """That it goes on when there is room is in test_chains.py."""
    done = mpirun(2, ["-c", FULL_FOR_RANK_1, TINY, SMALL, f"output={tmp_path}"])
    assert done.returncode == 74, done.stderr
    (line,) = lines_of(done.stderr)
    assert re.search(
        r"checkpoints/00001\.partial/client-0\.safetensors cannot be written .*File too large.*--resume", line
    )
