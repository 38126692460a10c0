"""The shipped job files on a real Slurm of two virtual nodes: what comes out is what an uninterrupted run gives.

FEDSTIL_SLURM names a folder with start_slurm.sh, which starts such a Slurm in the folder SLURM_SIM_DIR, on ports from
SLURM_SIM_PORT, and with the argument `stop` ends it. It has to be started by root.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from support import TINY
from support.launch import alone, environment, find_mpirun
from support.results import different, results

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

ROOT = Path(__file__).parents[2]
LONG = ["rounds.total=30", "rounds.evaluate_every=15", "train.steps=1"]
"""Rounds enough for a signal to come in the midst of them."""
ENDED = ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL")
LIMIT = 600
"""Seconds for a job, on a busy machine."""
SLOW = ROOT / "tests" / "support" / "scripts" / "slow.py"
"""A method whose rounds take PAUSE seconds at least."""


class Cluster:
    """A Slurm of two nodes."""

    def __init__(self, script, home):
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # for a checkout without .venv
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        own = {"SLURM_SIM_DIR": home, "SLURM_SIM_PORT": port, "SLURM_CONF": f"{home}/slurm.conf", "PATH": path}
        self.environment = environment(own)
        self.script = script

    def start(self):
        done = self._call("bash", self.script)
        if done.returncode:
            pytest.skip(f"{self.script} failed: {done.stderr.strip().splitlines()[-1:]}")

    def stop(self):
        self._call("bash", self.script, "stop")

    def submit(self, log, file, *arguments, options=()):
        """The job's number."""
        command = ["sbatch", "--parsable", f"--output={log}", "--time=10", *options, f"jobs/slurm/{file}", *arguments]
        done = self._call(*command)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def signal(self, job):
        """As Slurm does when the job's time is nearly over."""
        done = self._call("scancel", "--batch", "--signal=USR1", job)
        assert done.returncode == 0, done.stderr

    def shown(self, job):
        return dict(re.findall(r"(\w+)=(\S*)", self._call("scontrol", "-o", "show", "job", job).stdout))

    def wait(self, job, log):
        """What Slurm says of a job that has ended; logs say why it did not."""
        end = time.monotonic() + LIMIT
        while (shown := self.shown(job)).get("JobState") not in ENDED:
            if time.monotonic() > end:
                self._call("scancel", job)
                pytest.fail(f"job {job} has not ended: {shown}\n{log.read_text()}")
            time.sleep(0.5)
        return shown

    def _call(self, *command):
        return subprocess.run(
            [str(word) for word in command], cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=LIMIT,
        )  # fmt: skip


@pytest.fixture(scope="module")
def cluster():
    folder = os.environ.get("FEDSTIL_SLURM")
    if not folder:
        pytest.skip("FEDSTIL_SLURM names no folder with start_slurm.sh")
    if os.geteuid():
        pytest.skip("only root can start a Slurm")
    find_mpirun()  # skips where MPI is not installed
    cluster = Cluster(Path(folder) / "start_slurm.sh", tempfile.mkdtemp(prefix="slurm-"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run without Slurm or interruption, on one rank."""
    folder = tmp_path_factory.mktemp("whole")
    play("run", TINY, *LONG, "name=run", f"output={folder}")
    return folder / "run"


def play(command, *arguments):
    """On one rank."""
    done = alone("-m", f"fedstil_mpi.{command}", *arguments)
    assert done.returncode == 0, done.stderr


def assert_equal(run, expected):
    assert (run / "complete").exists()
    assert not different(results(run), results(expected))


def wait_for_rounds(run, rounds, log):
    lines, end = run / "metrics.jsonl", time.monotonic() + LIMIT
    while not lines.exists() or len(lines.read_text().splitlines()) < rounds:
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)


def test_two_nodes(cluster, whole, tmp_path):
    """Each rank has seen all GPUs of its node, as mpirun needs it, and was set to leave them alone."""
    log = tmp_path / "log"
    arguments = [TINY, *LONG, "name=run", f"output={tmp_path}"]
    shown = cluster.wait(
        cluster.submit(log, "multinode.sbatch", *arguments, options=["--ntasks-per-node=2"]),
        log,
    )
    assert shown["JobState"] == "COMPLETED", log.read_text()
    assert shown["NumNodes"] == "2"
    placements = json.loads((tmp_path / "run" / "environment.json").read_text())["placement"]
    assert sorted(placement["local_rank"] for placement in placements) == [0, 0, 1, 1]
    assert_equal(tmp_path / "run", whole)


def test_a_job_that_is_signalled_comes_back_and_completes(cluster, whole, tmp_path):
    log = tmp_path / "log"
    arguments = [TINY, *LONG, "name=run", f"output={tmp_path}"]
    job = cluster.submit(log, "run.sbatch", *arguments, options=["--ntasks-per-node=3"])
    wait_for_rounds(tmp_path / "run", 3, log)
    cluster.signal(job)
    shown = cluster.wait(job, log)
    assert (shown["JobState"], shown["Restarts"]) == ("COMPLETED", "1"), log.read_text()
    text = log.read_text()
    assert "asked to stop, and stopped" in text
    assert "resumes after round" in text
    assert_equal(tmp_path / "run", whole)


def test_a_job_longer_than_its_time_comes_back_until_it_is_complete(cluster, tmp_path):
    """On any machine, as its rounds sleep for longer than the 100 s that are left to it at most. The signal comes up to a minute
    early, so it has 40 s at least: a job of one minute may be signalled before its first round, many times over."""
    log = tmp_path / "log"
    arguments = [TINY, f"method.name={SLOW}", "rounds.total=60", "rounds.evaluate_every=30", "train.steps=1"]
    options = ["--ntasks-per-node=2", "--time=2", "--signal=B:USR1@20", "--export=ALL,PAUSE=2"]
    job = cluster.submit(log, "run.sbatch", *arguments, "name=run", f"output={tmp_path}", options=options)
    shown = cluster.wait(job, log)
    assert shown["JobState"] == "COMPLETED", log.read_text()
    assert int(shown["Restarts"]) > 0
    assert "asked to stop, and stopped" in log.read_text()
    play("run", *arguments, "name=whole", f"output={tmp_path}")
    assert_equal(tmp_path / "run", tmp_path / "whole")


def test_an_array_of_seeds_of_which_one_comes_back(cluster, tmp_path):
    """The last task of an array has the array's own number as SLURM_JOB_ID; only it goes back into the queue."""
    logs = {seed: tmp_path / f"log-{seed}" for seed in (1, 2)}
    arguments = [plan(tmp_path, "both"), *LONG, "--only", "alone", "FedAvg"]
    options = ["--array=1-2", "--ntasks-per-node=2"]
    job = cluster.submit(tmp_path / "log-%a", "compare.sbatch", *arguments, options=options)
    wait_for_rounds(tmp_path / "both" / "fedavg-2", 2, logs[2])
    cluster.signal(f"{job}_2")
    for seed, restarts in ((1, "0"), (2, "1")):
        shown = cluster.wait(f"{job}_{seed}", logs[seed])
        assert (shown["JobState"], shown["Restarts"]) == ("COMPLETED", restarts), logs[seed].read_text()
        last = logs[seed].read_text().splitlines()[-1]
        assert last == f"jobs: seed {seed} is done; after the last: python -m fedstil_mpi.report {tmp_path / 'both'}"
    assert not list((tmp_path / "both").glob("fedstil-*"))
    assert not (tmp_path / "both" / "report").exists()  # which two tasks would write at once
    play("compare", plan(tmp_path, "direct"), *LONG, "--only", "alone", "FedAvg", "--seeds", "1", "2")
    for name in ("alone-1", "fedavg-1", "alone-2", "fedavg-2"):
        assert_equal(tmp_path / "both" / name, tmp_path / "direct" / name)


def plan(folder, name):
    """The file of a comparison whose runs go to `folder`/`name`."""
    variants = {"alone": {"method.name": "single"}, "FedAvg": {"method.name": "fedavg"}, "FedSTIL": {}}
    tree = {"base": str(TINY), "name": name, "output": str(folder), "seeds": [7], "variants": variants}
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(tree))
    return path


def test_a_config_that_cannot_be_used_fails_at_once(cluster, tmp_path):
    log = tmp_path / "log"
    job = cluster.submit(log, "sweep.sbatch", TINY, "train.stepps=1", options=["--ntasks-per-node=2"])
    shown = cluster.wait(f"{job}_0", log)
    assert (shown["JobState"], shown["ExitCode"]) == ("FAILED", "2:0")
    assert "unknown config key train.stepps; did you mean train.steps?" in log.read_text()
