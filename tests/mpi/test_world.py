"""The ranks of a run under a real mpirun: what they exchange, how they wait, and how a job ends."""

import json
import os
import platform
import re
import time

import pytest

from fedstil_mpi.comm.start import check_launch, prepare_environment
from fedstil_mpi.util.errors import InputError
from support.launch import SCRIPTS, alone, lines_of, mpirun, survivors

HOST = platform.node()


@pytest.fixture(scope="module")
def tour():
    # Without the MPI library's own help in waiting, as with libraries that have none.
    spinning = {"OMPI_MCA_mpi_yield_when_idle": "0", "OMPI_MCA_threads_pthreads_yield_strategy": "sched_yield"}
    done = mpirun(3, [SCRIPTS / "tour.py"], env=spinning)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_ranks_know_themselves(tour):
    assert tour["size"] == 3
    assert [rank[0] for rank in tour["ranks"]] == [0, 1, 2]
    assert sorted(rank[1] for rank in tour["ranks"]) == [0, 1, 2]  # local ranks, in whatever order
    assert all(rank[2] == 0 for rank in tour["ranks"])  # one host, whose lowest rank is 0
    assert [rank[3] for rank in tour["ranks"]] == [True, False, False]
    assert not tour["torch"]


def test_json_round_trips(tour):
    value = {"text": "grün", "nested": [1, 2.5, None, True], "empty": {}}
    assert tour["received"] == [value] * 3
    assert tour["lengths"] == [0, 1000, 2000]
    assert tour["elsewhere"] == [[True] * 4] * 3


def test_rows_arrive_in_rank_order_with_their_dtype(tour):
    for dtype, (found, rows) in tour["rows"].items():
        assert found == dtype
        values = [1.0, 1.0] if dtype == "bool" else [1.0, 2.0]
        assert rows == [[values[0]] * 3] * 2 + [[values[1]] * 3] * 4
    assert tour["flat"] == [0, 0, 1, -1, 2, -2]
    assert tour["strided"] == [[0, 4], [1, 5], [2, 6], [3, 7]] * 3  # a transposed array


def test_no_rows_at_all_keep_dtype_and_shape(tour):
    assert tour["nobody"] == ["float32", [0, 4]]
    assert tour["widthless"] == [6, 0]


def test_rows_arrive_on_every_rank(tour):
    values = [[1] * 3] * 2 + [[2] * 3] * 4
    turned = [[0, 4], [1, 5], [2, 6], [3, 7]] * 3
    expected = [["float32", values], ["int64", values], ["float32", []], ["float32", [[]] * 6], ["float64", turned]]
    assert tour["everywhere"] == [expected] * 3


def test_a_duplicate_is_given_back(tour):
    assert tour["communicators"] == 1


def test_rank_placements(tour):
    assert [placement["clients"] for placement in tour["placements"]] == [[], [0, 1], [2]]
    assert [(placement["rank"], placement["host"]) for placement in tour["placements"]] == [
        (0, HOST),
        (1, HOST),
        (2, HOST),
    ]
    assert all(
        (placement["device"], placement["gpu"], placement["threads"]) == ("cpu", None, 1)
        for placement in tour["placements"]
    )


def test_waiting_ranks_sleep(tour):
    assert all(share < 0.1 for share in tour["share"][1:]), tour["share"]


@pytest.mark.parametrize(
    ("how", "code", "error"),
    [
        ("exception", 1, "ZeroDivisionError: division by zero"),
        ("exit3", 3, "SystemExit: 3"),
        ("exit0", 1, "SystemExit: 0"),
        ("thread", 1, "ZeroDivisionError: division by zero"),
    ],
)
def test_failure_of_one_rank_ends_the_job(how, code, error, tmp_path):
    began = time.monotonic()
    done = mpirun(3, [SCRIPTS / "fail.py", how, tmp_path], timeout=30)
    assert time.monotonic() - began < 10
    assert done.returncode == code
    assert lines_of(done.stderr) == [f"fedstil_mpi: rank 1 on {HOST} failed (client 2, task 1, round 4): {error}"]
    assert "Traceback" in done.stderr
    assert not survivors(tmp_path)


def test_killed_rank_ends_the_job(tmp_path):
    began = time.monotonic()
    done = mpirun(3, [SCRIPTS / "fail.py", "kill", tmp_path], timeout=30)
    assert time.monotonic() - began < 10
    assert done.returncode != 0
    assert not survivors(tmp_path)


def test_others_are_waited_for_only_so_long(tmp_path):
    done = mpirun(3, [SCRIPTS / "fail.py", "late", tmp_path], timeout=30)
    assert done.returncode == 1
    lines = lines_of(done.stderr)
    for line in lines:
        assert re.match(
            rf"fedstil_mpi: rank [02] on {HOST} failed \(client 2, task 1, round 4\): waited 1.5 s for", line
        )
    assert lines
    assert "Traceback" not in done.stderr
    assert not survivors(tmp_path)


def test_verdict_is_shared_and_ends_all_ranks_in_order():
    done = mpirun(4, [SCRIPTS / "refuse.py"])
    assert done.returncode == 2
    assert lines_of(done.stderr) == [
        "fedstil_mpi: colour is 'mauve', expected 'red': change it",
        "fedstil_mpi: no space on node",
    ]
    assert "Traceback" not in done.stderr
    assert "ABORT" not in done.stderr
    assert "went on" not in done.stdout


@pytest.mark.parametrize(("how", "code"), [("exception", 1), ("exit3", 3), ("exit0", 1), ("thread", 1)])
def test_single_rank_fails_alike(how, code, tmp_path):
    done = alone(SCRIPTS / "fail.py", how, tmp_path)
    assert done.returncode == code
    assert len(lines_of(done.stderr)) == 1
    assert f"rank 0 on {HOST} failed (client 2, task 1, round 4)" in done.stderr


def test_input_error_outside_a_verdict_is_one_line(tmp_path):
    done = alone(SCRIPTS / "fail.py", "input", tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip() == (f"fedstil_mpi: camera 7 is missing (rank 0 on {HOST}, client 2, task 1, round 4)")


def test_worlds_of_one_started_by_srun_are_refused():
    done = alone(SCRIPTS / "refuse.py", SLURM_NTASKS="6")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "SLURM_NTASKS is 6" in line
    assert "mpirun -n" in line
    assert "--mpi=" in line


@pytest.mark.parametrize(
    ("size", "env"),
    [
        (1, {}),
        (1, {"SLURM_NTASKS": "1"}),
        (6, {"SLURM_NTASKS": "6"}),
        (4, {"SLURM_NTASKS": "6", "OMPI_COMM_WORLD_SIZE": "4"}),
        (1, {"SLURM_NTASKS": "6", "OMPI_COMM_WORLD_SIZE": "1"}),
        (1, {"SLURM_NTASKS": "6", "PMI_SIZE": "1"}),
    ],
)
def test_launches_that_are_meant_are_accepted(size, env):
    check_launch(size, env)


def test_a_launcher_that_the_library_does_not_know_is_refused():
    with pytest.raises(InputError, match="PMI_SIZE is 6"):
        check_launch(1, {"PMI_SIZE": "6", "SLURM_NTASKS": "6"})


@pytest.mark.parametrize(
    ("before", "env"),
    [("sys.modules['mpi4py'] = None; ", {}), ("", {"MPI4PY_LIBMPI": "/nowhere/libmpi.so"})],
    ids=["no mpi4py", "no MPI library"],
)
def test_missing_mpi_is_one_line_with_the_remedy(before, env):
    code = f"import sys; {before}from fedstil_mpi.comm.start import start\nwith start(): print('started')"
    done = alone("-c", code, **env)
    assert done.returncode == 2
    assert "started" not in done.stdout
    (line,) = done.stderr.splitlines()
    assert "pip install 'fedstil-mpi[mpi]'" in line


def test_a_users_own_setting_wins(monkeypatch):
    env = {"OMP_WAIT_POLICY": "ACTIVE"}
    monkeypatch.setattr(os, "environ", env)
    prepare_environment()
    assert env["OMP_WAIT_POLICY"] == "ACTIVE"
    assert env["OMPI_MCA_threads_pthreads_yield_strategy"] == "nanosleep"
