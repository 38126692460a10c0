"""The job scripts with stand-ins for the launcher, Python and Slurm: what they start, when they go on, what they believe."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SLURM = {"SLURM_JOB_ID": "17"}
ARRAY = {"SLURM_JOB_ID": "17", "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "2"}

PLAY = 'echo "$*" >> calls\neval "$(sed -n "$(wc -l < calls)p" plays)"'
"""Does what the next line of the file `plays` says, and notes how it was called."""
STANDS_IN = {
    "mpirun": PLAY,
    "flux": f'if [[ $1 == --parent ]]; then echo "$*" >> requeued; exit; fi\n{PLAY}',
    "qsub": 'echo "$*" >> requeued',
    "python": "cat folders",  # which of these scripts calls jobs/folders.py alone
    "scontrol": 'echo "$*" >> requeued',
}
DONE = "touch runs/x/complete; exit 0"
LISTEN = "trap 'touch asked; exit 75' USR1; touch listening; for _ in {1..600}; do sleep 0.05; done"


class Place:
    """A checkout without .venv, and programs that stand in for those on PATH."""

    def __init__(self, folder):
        self.folder = folder
        shutil.copytree(ROOT / "jobs", folder / "jobs")
        (folder / "bin").mkdir()
        (folder / "runs" / "x").mkdir(parents=True)
        (folder / "folders").write_text("runs/x\n")
        for name, text in STANDS_IN.items():
            (folder / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
            (folder / "bin" / name).chmod(0o755)

    def begin(self, plays, script, *arguments, **environment):
        (self.folder / "plays").write_text("".join(f"{line}\n" for line in plays))
        own = {"SLURM_SUBMIT_DIR": str(self.folder), "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}
        usual = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
        command = ["bash", f"jobs/{script}", *arguments]
        return subprocess.Popen(
            command, cwd=self.folder, env={**usual, **own, **environment}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def play(self, *arguments, **environment):
        """Exit code and output."""
        process = self.begin(*arguments, **environment)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def lines(self, name):
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def wait_for(self, name):
        end = time.monotonic() + 30
        while not (self.folder / name).exists():
            assert time.monotonic() < end, f"no {name}"
            time.sleep(0.02)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


RUN = ("slurm/run.sbatch", "a.yaml", "seed=2")


def test_a_complete_run_is_the_end(place):
    assert place.play([DONE], *RUN, **SLURM)[0] == 0
    assert place.lines("calls") == ["--bind-to none python -m fedstil_mpi.run --resume a.yaml seed=2"]
    assert not place.lines("requeued")


def test_a_launcher_that_returns_0_is_not_believed(place):
    code, output = place.play(["exit 0"], *RUN, **SLURM)
    assert code == 1
    assert "runs/x has no file complete" in output
    assert not place.lines("requeued")


@pytest.mark.parametrize(("environment", "job"), [(SLURM, "17"), (ARRAY, "17_2")])
def test_a_paused_run_goes_back_into_the_queue(place, environment, job):
    assert place.play(["exit 75"], *RUN, **environment)[0] == 75
    assert place.lines("requeued") == [f"requeue {job}"]


@pytest.mark.parametrize("code", [1, 2, 138])
def test_a_failed_run_does_not(place, code):
    assert place.play([f"exit {code}"], *RUN, **SLURM)[0] == code
    assert not place.lines("requeued")


def test_a_config_that_cannot_be_used_starts_nothing(place):
    (place.folder / "bin" / "python").write_text("#!/bin/bash\nexit 2\n")
    assert place.play([DONE], *RUN, **SLURM)[0] == 2
    assert not place.lines("calls")


@pytest.mark.parametrize(("code", "end"), [(75, 75), (137, 75), (138, 75), (2, 2), (74, 74)])
def test_the_signal_is_passed_on(place, code, end):
    """137: the launcher killed ranks that were a little slower; 138: the signal came before the program listened."""
    process = place.begin([LISTEN.replace("75", str(code))], *RUN, **SLURM)
    place.wait_for("listening")
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=60)
    assert process.returncode == end
    assert (place.folder / "asked").exists()
    assert place.lines("requeued") == (["requeue 17"] if end == 75 else [])


def test_a_signal_before_the_start_starts_nothing(place):
    (place.folder / "bin" / "python").write_text("#!/bin/bash\nkill -USR1 $PPID\ncat folders\n")
    assert place.play([DONE], *RUN, **SLURM)[0] == 75
    assert not place.lines("calls")
    assert place.lines("requeued") == ["requeue 17"]


PBS = ("pbs/run.pbs",), "-v ARGS=a.yaml seed=2 jobs/pbs/run.pbs", "--bind-to none --hostfile nodes"
FLUX = ("flux/run.flux", "a.yaml", "seed=2"), "--parent batch jobs/flux/run.flux a.yaml seed=2", "run -n 6"


@pytest.mark.parametrize(("script", "again", "launcher"), [PBS, FLUX])
def test_other_schedulers_ask_for_a_checkpoint_themselves_and_submit_again(place, script, again, launcher):
    file = place.folder / "jobs" / script[0]
    file.write_text(file.read_text().replace("seconds=3600", "seconds=121"))
    environment = {"PBS_O_WORKDIR": str(place.folder), "PBS_NODEFILE": "nodes", "ARGS": "a.yaml seed=2"}
    assert place.play([LISTEN, DONE], *script, **environment)[0] == 75
    assert (place.folder / "asked").exists()
    assert place.lines("requeued") == [again]
    assert place.play([LISTEN, DONE], *script, **environment)[0] == 0
    assert place.lines("calls") == [f"{launcher} python -m fedstil_mpi.run --resume a.yaml seed=2"] * 2
    assert place.lines("requeued") == [again]


def test_a_comparison_has_a_seed_for_each_task_of_the_array(place):
    code, output = place.play([DONE], "slurm/compare.sbatch", "a.yaml", "--only", "A", **ARRAY)
    assert code == 0
    assert place.lines("calls") == [
        "--bind-to none python -m fedstil_mpi.compare a.yaml --only A --no-report --seeds 2"
    ]
    assert output.splitlines()[-1] == "jobs: seed 2 is done; after the last: python -m fedstil_mpi.report runs"


def test_a_sweep_has_a_file_for_each_task_of_the_array(place):
    (place.folder / "sweep").mkdir()
    for name in ("b.yaml", "a.yaml"):
        (place.folder / "sweep" / name).touch()
    arguments = ("slurm/sweep.sbatch", "first.yaml", "sweep", "seed=3")
    assert place.play([DONE], *arguments, **ARRAY)[0] == 0
    assert place.lines("calls") == ["--bind-to none python -m fedstil_mpi.run --resume sweep/b.yaml seed=3"]
    code, output = place.play([DONE], *arguments, **{**ARRAY, "SLURM_ARRAY_TASK_ID": "3"})
    assert (code, output) == (2, "jobs: file 3 of 0 to 2\n")


# -- without Slurm -----------------------------------------------------------------------------------------------------

LOCAL = ("local.sh", "-n", "4", "-r", "2", "run", "a.yaml")


@pytest.mark.parametrize(
    ("plays", "code"),
    [
        ([DONE], 0),
        (["exit 75", "exit 75", "exit 75", "exit 75", DONE], 0),  # pauses are no crashes
        (["exit 137", "exit 75", "exit 0", DONE], 0),  # the third is no end, whatever it says
        (["exit 137", "exit 1", "exit 139", DONE], 139),
        (["exit 2", DONE], 2),
    ],
)
def test_one_machine_goes_on_until_the_end(place, plays, code):
    assert place.play(plays, *LOCAL)[0] == code
    expected = len(plays) if code == 0 else plays.index(f"exit {code}") + 1
    assert place.lines("calls") == ["-n 4 --bind-to none python -m fedstil_mpi.run --resume a.yaml"] * expected


def test_ctrl_c_stops_at_a_checkpoint(place):
    process = place.begin([LISTEN, DONE], *LOCAL)
    place.wait_for("listening")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert (place.folder / "asked").exists()
    assert len(place.lines("calls")) == 1


def test_a_second_ctrl_c_stops_at_once(place):
    loop = "for _ in {1..600}; do sleep 0.05; done"
    deaf = f"trap 'touch asked' USR1; trap 'touch ended; exit 143' TERM; touch listening; {loop}"
    process = place.begin([deaf, DONE], *LOCAL)
    for name in ("listening", "asked"):
        place.wait_for(name)
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert (place.folder / "ended").exists()
    assert len(place.lines("calls")) == 1


# -- which folders -----------------------------------------------------------------------------------------------------


def folders(*arguments):
    command = [sys.executable, "jobs/folders.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_folders_of_commands(tmp_path):
    done = folders("run", "--resume", "configs/quickstart.yaml", "output=there", "name=one")
    assert done.stdout == "there/one\n"
    base = str(ROOT / "configs" / "quickstart.yaml")
    plan = {"base": base, "name": "both", "variants": {"A b": {}, "C": {"seed": 3}}}
    (tmp_path / "plan.yaml").write_text(json.dumps(plan))
    arguments = ("compare", tmp_path / "plan.yaml", "train.steps=1", "--only", "A b", "--seeds", "4", "5")
    assert folders(*arguments).stdout.split() == ["runs/both/a-b-4", "runs/both/a-b-5"]
    renamed = ("compare", tmp_path / "plan.yaml", "--only", "A b", "name=other", "--seeds", "4", "output=there")
    assert folders(*renamed).stdout.split() == ["there/other/a-b-4"]
    refused = folders("run", "configs/quickstart.yaml", "train.stepps=1")
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith("fedstil_mpi: unknown config key train.stepps; did you mean train.steps?")
