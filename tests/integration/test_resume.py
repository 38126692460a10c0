"""A run that was interrupted equals one that was not, to the last bit, on whatever number of ranks it goes on."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from itertools import cycle

import pytest

from fedstil_mpi import methods
from fedstil_mpi.launch.signals import PAUSED
from support import TINY
from support.launch import SCRIPTS, environment, find_mpirun, kill_session, mpirun
from support.results import different, results

LONGER = ["rounds.per_task=2", "train.steps=3"]
EPOCHS = ["rounds.per_task=2", "train.steps=0", "train.epochs=2"]
EXPERIMENTS = {
    **{name: [f"method.name={name}", *LONGER] for name in methods.names()},
    **{
        f"{name}_reference": [f"method.name={name}", "method.preset=reference", *EPOCHS, "memory.size=30"]
        for name in ("fedcurv", "fedstil", "fedweit")
    },
    "late": [*LONGER, "warmup.steps=2", "rounds.clients_per_round=2", "train.augment=default"],
    "memory": [*LONGER, "method.server_memory=0.5", "train.refresh=task", "participation.dropout=0.3"],
    "curves": ["method.name=fedcurv", *LONGER, "prototypes.exchange=true", "participation.late=0.6"],
}
RANKS = 3
RESUMED = (1, 3, 6)
ABSENT = ("late", "memory", "curves")
"""Where clients are away now and then."""


@pytest.fixture(scope="module")
def moments():
    """By experiment, at which look it is paused: at any, but the same in every run of these tests.

    A rank looks once a batch, at the end of training and at the end of each of the four rounds.
    """
    draw = random.Random(5)
    return {name: draw.randint(1, 8 if name in ABSENT else 18) for name in EXPERIMENTS}


@pytest.fixture(scope="module")
def paused(moments, tmp_path_factory):
    folder = tmp_path_factory.mktemp("paused")
    play(RANKS, folder, moments)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    play(1, folder, dict.fromkeys(EXPERIMENTS, 0))
    return folder


def play(ranks, folder, moments, experiments=EXPERIMENTS):
    done = started(ranks, folder, moments, experiments)
    assert done.returncode == 0, done.stderr


def started(ranks, folder, moments, experiments, *delay):
    script = [
        SCRIPTS / "pause.py",
        folder,
        TINY,
        json.dumps(experiments),
        json.dumps(moments),
        *map(str, delay),
    ]
    return mpirun(ranks, script, timeout=600)


def differences(folder, whole, names):
    """Between the results of runs of the same names."""
    found = []
    for name in names:
        found += [f"{name}: {path}" for path in different(results(folder / name), results(whole / name))]
        lines = [(runs / name / "metrics.jsonl").read_text() for runs in (whole, folder)]
        assert lines[0] == lines[1], name
        assert not (folder / name / "checkpoints").exists()
    return found


@pytest.fixture(scope="module", params=RESUMED)
def resumed(request, paused, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"resumed{request.param}") / "runs"
    shutil.copytree(paused, folder)
    play(request.param, folder, dict.fromkeys(EXPERIMENTS, 0))
    return folder


@pytest.mark.slow
def test_a_paused_run_goes_on_as_if_it_had_not_been_paused(whole, resumed):
    assert not differences(resumed, whole, EXPERIMENTS)


@pytest.mark.slow
def test_pauses_came_in_all_kinds_of_places(paused):
    """In training and between rounds, in the first round and later."""
    places = {path.relative_to(paused / name) for name in EXPERIMENTS for path in (paused / name).rglob("learning")}
    kept = {path.name for name in EXPERIMENTS for path in (paused / name / "checkpoints").iterdir()}
    assert {"start", "00001", "00002", "00003"} <= kept
    assert len(places) > 1
    for name in EXPERIMENTS:
        rounds = [path for path in (paused / name / "checkpoints").iterdir() if path.name != "start"]
        assert len(rounds) <= 2
        assert not list((paused / name).rglob("*.partial"))
        assert not (paused / name / "complete").exists()


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_as_if_it_had_not_been_killed(whole, tmp_path):
    """Every method, all ranks at once, at any moment; each job goes on from the last one on another number of ranks."""
    draw = random.Random(6)
    experiments = {name: EXPERIMENTS[name] for name in methods.names()}
    moments = {name: draw.randint(1, 18) for name in experiments}
    ranks, code, killed = cycle((3, 1)), None, set()
    while code != 0:
        left = {name: 0 if name in killed else moment for name, moment in moments.items()}
        code = started(next(ranks), tmp_path, left, experiments, draw.uniform(0, 0.2)).returncode
        before, killed = killed, set((tmp_path / "killed").read_text().splitlines())
        assert code == 0 or len(killed) > len(before)
    assert killed == set(experiments)
    assert not differences(tmp_path, whole, experiments)


KILLS = int(os.environ.get("FEDSTIL_KILLS", "2"))
"""How often the run is killed; 20 take two minutes."""


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_loses_at_most_the_round_in_progress(tmp_path):
    whole = ["rounds.per_task=20", "train.steps=4"]
    play(1, tmp_path, {"whole": 0}, {"whole": whole})
    draw = random.Random(7)
    folder = tmp_path / "killed"
    command = [
        find_mpirun(),
        "-n",
        "3",
        "--bind-to",
        "none",
        sys.executable,
        "-m",
        "fedstil_mpi.run",
        TINY,
        "--resume",
    ]
    command += [f"output={tmp_path}", "name=killed", *whole]
    for _ in range(KILLS):
        before = rounds_of(folder)
        job = subprocess.Popen(
            command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + 120
        while rounds_of(folder) <= before and job.poll() is None and time.monotonic() < deadline:
            assert len(generations_of(folder)) <= 2
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.5))
        kill_session(job)
        job.wait()
        lines = rounds_of(folder)
        assert before < lines < 40, "killed too late to say anything"
        assert newest_of(folder) in (lines - 1, lines)
    ended = mpirun(3, command[6:], timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert not different(results(folder), results(tmp_path / "whole"))


def rounds_of(folder):
    """Rounds that a run has reported."""
    lines = folder / "metrics.jsonl"
    return len(lines.read_text().splitlines()) if lines.exists() else 0


def generations_of(folder):
    """Complete or not."""
    return {path.name for path in (folder / "checkpoints").glob("0*")}


def newest_of(folder):
    """The round after which the newest complete checkpoint was taken."""
    complete = [path.parent.name for path in (folder / "checkpoints").glob("*/checkpoint.json")]
    return max((int(name) for name in complete if name.isdigit()), default=0)


@pytest.mark.slow
def test_a_signal_to_the_launcher_pauses_the_run(tmp_path):
    command = [find_mpirun(), "-n", "3", "--bind-to", "none", sys.executable, "-m", "fedstil_mpi.run", TINY]
    command += [f"output={tmp_path}", "name=asked", "rounds.per_task=30", "train.steps=4"]
    job = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while rounds_of(tmp_path / "asked") < 2 and job.poll() is None:
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    _, err = job.communicate(timeout=60)
    assert job.returncode == PAUSED, err
    assert "asked to stop, and stopped" in err
    assert "go on with --resume" in err
    assert newest_of(tmp_path / "asked") >= 2
    refused = mpirun(1, command[6:])
    assert refused.returncode == 2
    assert "go on with --resume" in refused.stderr
