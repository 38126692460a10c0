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
from support import SMALL, TINY
from support.cases import FEDERATED
from support.launch import SCRIPTS, codes, environment, find_mpirun, kill_session, mpirun, play
from support.results import different, lines, results

LONGER = [SMALL, "rounds.per_task=2", "train.steps=3"]
EPOCHS = [SMALL, "rounds.per_task=2", "train.steps=0", "train.epochs=2"]
ALL = {
    **{name: [f"method.name={name}", *LONGER] for name in methods.names()},
    **{
        f"{name}_reference": [f"method.name={name}", "method.preset=reference_code", *EPOCHS, "memory.size=30"]
        for name in ("fedcurv", "fedstil", "fedweit")
    },
    **{f"{name}_seldom": [f"method.name={name}", *LONGER, "rounds.exchange_every=3"] for name in FEDERATED},
    "late": [*LONGER, "warmup.steps=2", "rounds.clients_per_round=2", "train.augment=default"],
    "memory": [
        *LONGER,
        "method.server_memory=0.5",
        "serving.average=0.5",
        "train.refresh=task",
        "participation.dropout=0.3",
    ],
    "curves": ["method.name=fedcurv", *LONGER, "prototypes.exchange=true", "participation.late=0.6"],
}
SHORT = ("icarl", "fedstil", "fedweit_reference", "fedstil_seldom", "late", "memory", "curves")
"""A method of each kind of state: models of its own, what others sent, a history on the server, sums of importances."""
ABSENT = ("late", "memory", "curves")
"""Where clients are away now and then."""
PAUSED_ON, RESUMED_ON = 3, {"short": (1,), "long": (1, 3, 6)}
LONG = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module", params=["short", pytest.param("long", marks=LONG)])
def length(request):
    return request.param


@pytest.fixture(scope="module")
def experiments(length):
    return {name: ALL[name] for name in (SHORT if length == "short" else ALL)}


@pytest.fixture(scope="module")
def paused(experiments, tmp_path_factory):
    """The folder of the experiments, each paused at any look, but at the same in every run of these tests.

    A rank looks once a batch, at the end of training and at the end of each of the four rounds.
    """
    draw, folder = random.Random(5), tmp_path_factory.mktemp("paused")
    moments = {name: draw.randint(1, 8 if name in ABSENT else 18) for name in ALL}
    done = play(PAUSED_ON, folder, experiments, json.dumps({name: moments[name] for name in experiments}))
    assert set(codes(done).values()) == {PAUSED}
    return folder


def go_on(ranks, folder, whole, experiments):
    """What differs between the experiments, which go on in `folder`, and the same ones, which are played into `whole`."""
    uninterrupted = {f"whole_{name}": [*of, f"name={name}", f"output={whole}"] for name, of in experiments.items()}
    missing = {} if whole.exists() else uninterrupted
    assert not any(codes(play(ranks, folder, experiments | missing, "{}")).values())
    found = []
    for name in experiments:
        found += [f"{name}: {path}" for path in different(results(folder / name), results(whole / name))]
        assert lines(folder / name) == lines(whole / name), name
        assert (folder / name / "metrics.csv").read_text() == (whole / name / "metrics.csv").read_text(), name
        assert not (folder / name / "checkpoints").exists()
    return found


@pytest.mark.slow
def test_a_paused_run_goes_on_as_if_it_had_not_been_paused(length, experiments, paused, tmp_path):
    for ranks in RESUMED_ON[length]:
        folder = tmp_path / str(ranks)
        shutil.copytree(paused, folder)
        assert not go_on(ranks, folder, tmp_path / "whole", experiments)


@pytest.mark.slow
def test_pauses_came_in_all_kinds_of_places(experiments, paused):
    """In training and between rounds, in the first round and later."""
    places = {path.relative_to(paused / name) for name in experiments for path in (paused / name).rglob("learning")}
    kept = {path.name for name in experiments for path in (paused / name / "checkpoints").iterdir()}
    assert {"start", "00001", "00002", "00003"} <= kept
    assert len(places) > 1
    for name in experiments:
        rounds = [path for path in (paused / name / "checkpoints").iterdir() if path.name != "start"]
        assert len(rounds) <= 2
        assert not list((paused / name).rglob("*.partial"))
        assert not (paused / name / "complete").exists()


@pytest.mark.slow
@pytest.mark.long
def test_a_run_that_is_killed_goes_on_as_if_it_had_not_been_killed(tmp_path):
    """Every method, all ranks at once, at any moment; each job goes on from the last one on another number of ranks."""
    draw = random.Random(6)
    experiments = {name: ALL[name] for name in methods.names()}
    moments = {name: draw.randint(1, 18) for name in experiments}
    ranks, code, killed, folder = cycle((3, 1)), None, set(), tmp_path / "killed"
    while code != 0:
        left = {name: 0 if name in killed else moment for name, moment in moments.items()}
        script = [SCRIPTS / "play.py", folder, TINY, json.dumps(experiments), json.dumps(left), draw.uniform(0, 0.2)]
        code = mpirun(next(ranks), script, timeout=600).returncode
        before, killed = killed, set((folder / "killed").read_text().splitlines())
        assert code == 0 or len(killed) > len(before)
    assert killed == set(experiments)
    assert not go_on(1, folder, tmp_path / "whole", experiments)


def launched(ranks, folder, name, *overrides, **streams):
    """A job that is left to itself."""
    launcher = [find_mpirun(), "-n", str(ranks), "--bind-to", "none", sys.executable, "-m", "fedstil_mpi.run"]
    settings = [str(TINY), f"output={folder}", f"name={name}", *overrides]
    return subprocess.Popen([*launcher, *settings], env=environment(), **streams)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(("kills", "ranks"), [(1, 3), (int(os.environ.get("FEDSTIL_KILLS", "5")), 1)])
def test_a_run_that_is_killed_again_and_again_loses_at_most_the_round_in_progress(tmp_path, kills, ranks):
    """Also of a job of several ranks that goes on as one."""
    per_task = 6 + 2 * kills
    settings = [f"rounds.per_task={per_task}", "train.steps=4"]
    folder = tmp_path / "killed"
    draw = random.Random(7)
    for _ in range(kills):
        before = rounds_of(folder)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
        job = launched(3, tmp_path, "killed", *settings, "--resume", **quiet)
        deadline = time.monotonic() + 120
        while rounds_of(folder) <= before and job.poll() is None and time.monotonic() < deadline:
            assert len(generations_of(folder)) <= 2
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.5))
        kill_session(job)
        job.wait()
        reported = rounds_of(folder)
        assert before < reported < 2 * per_task, "killed too late to say anything"
        assert newest_of(folder) in (reported - 1, reported)
    assert not go_on(ranks, tmp_path, tmp_path / "whole", {"killed": settings})


def rounds_of(folder):
    """Rounds that a run has reported."""
    file = folder / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def generations_of(folder):
    """Complete or not."""
    return {path.name for path in (folder / "checkpoints").glob("0*")}


def newest_of(folder):
    """The round after which the newest complete checkpoint was taken."""
    complete = [path.parent.name for path in (folder / "checkpoints").glob("*/checkpoint.json")]
    return max((int(name) for name in complete if name.isdigit()), default=0)


@pytest.mark.slow
def test_a_signal_to_the_launcher_pauses_the_run(tmp_path):
    settings = [SMALL, "rounds.per_task=200", "train.steps=4", "rounds.evaluate_every=200"]
    job = launched(2, tmp_path, "asked", *settings, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while rounds_of(tmp_path / "asked") < 2 and job.poll() is None:
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    _, err = job.communicate(timeout=60)
    assert job.returncode == PAUSED, err
    assert "asked to stop, and stopped" in err
    assert "go on with --resume" in err
    assert newest_of(tmp_path / "asked") >= 2
