"""Check in a few tiny rounds that a method of your own keeps what the program promises.

    python -m fedstil_mpi.check_method mine.py [section.key=value ...]

Says line by line whether options and presets load, whether the bytes are as predicted, whether checkpoints hold all that
the method keeps, whether a run that is paused and resumed equals one that is not, and whether one rank and three agree.
Exit code 0: all of it holds; 1: something does not; 2: the input cannot be used, and one line says why.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fedstil_mpi import methods
from fedstil_mpi.comm.failures import OrderlyEnd
from fedstil_mpi.comm.start import start
from fedstil_mpi.comm.world import World
from fedstil_mpi.config import loading
from fedstil_mpi.config.command_line import Parser
from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.config.sections import Compression
from fedstil_mpi.federation import effects
from fedstil_mpi.federation.shared_resources import SharedResources
from fedstil_mpi.launch.signals import PAUSED
from fedstil_mpi.results import RESULTS_FILE
from fedstil_mpi.run import execute
from fedstil_mpi.util import hdf5
from fedstil_mpi.util.errors import InputError

TINY: dict[str, Any] = {
    "data": {
        "height": 32,
        "width": 16,
        "tasks": 2,
        "synthetic": {
            **{"clients": 3, "people_per_task": 4, "train_images": 3, "query_images": 1, "gallery_images": 1},
            **{"warmup_people": 8, "warmup_images": 2},
        },
    },
    "rounds": {"per_task": 2, "clients_per_round": 2},
    "train": {"steps": 0, "epochs": 1, "batch": 8},
    "memory": {"size": 12},
    "placement": {"device": "cpu", "threads": 1},
}
"""Three clients, two of which take part in a round, and two tasks of two rounds."""
RANKS = 3
PAUSES = 3
"""About so often the run that is resumed is paused, in training and between rounds."""
SETTINGS = {
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",  # three ranks need not have three cores
    **dict.fromkeys(
        ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"), "1"
    ),  # who is all there is in a container
}
"""Settings of mpirun, where the environment does not say otherwise."""
LONGEST = 600
"""Seconds that the job of several ranks may take."""


class Failed(Exception):  # noqa: N818 - it is no error of the program
    """What does not hold, in one line."""


class Runs:
    """Runs of one method in this process, which share images and start model, and their results."""

    def __init__(self, world: World, folder: Path, settings: Sequence[str]):
        self.world = world
        self.folder = folder
        self.config = folder / "tiny.yaml"
        self.config.write_text(json.dumps(TINY))
        self.settings = [f"output={folder}", *settings]
        self.resources: SharedResources | None = None
        self.looks = 0
        """How often a run looks whether it is asked to stop."""

    def resolved(self) -> tuple["methods.MethodModule", Experiment]:
        """The method, and the config of all runs. Raises InputError for settings that there are not."""
        return methods.resolve(loading.read(self.config, self.settings))

    def play(
        self, name: str, *settings: str, asked: Callable[[], bool] = lambda: False, thorough: bool = False
    ) -> bool:
        """Run, or resume, a run of this name; returns whether it is complete. Raises Failed where it fails."""
        source = loading.read(self.config, [*self.settings, f"name={name}", "resume=auto", *settings])
        said = io.StringIO()
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(said):
                execution = execute(self.world, source, self.resources, detail="brief", asked=asked, thorough=thorough)
            self.resources = execution
        except OrderlyEnd as end:
            if end.code == PAUSED:
                return False
            raise Failed(said.getvalue().strip().removeprefix("fedstil_mpi: ")) from None
        except Exception as error:
            raise Failed(described(error)) from error
        return True

    def same(self, name: str, other: str) -> None:
        """Raise Failed where two runs' results differ."""
        found, expected = results(self.folder / name), results(self.folder / other)
        paths = [path for path in expected | found if found.get(path) != expected.get(path)]
        if paths:
            raise Failed(f"results differ in {', '.join(paths[:5])}" + ", ..." * (len(paths) > 5))


def results(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Every data set of a run's results but the times, to the last bit, by path."""
    import h5py

    found: dict[str, tuple[str, tuple[int, ...], bytes]] = {}

    def note(path: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not path.startswith("seconds/"):
            values = item.asstr()[()] if h5py.check_string_dtype(item.dtype) else item[()]
            found[path] = str(item.dtype), item.shape, repr(values.tolist()).encode()

    with hdf5.parsed(folder / RESULTS_FILE, "results") as file:
        file.visititems(note)
    return found


def described(error: Exception) -> str:
    """An exception and where it was raised, in one line."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {' '.join(str(error).split())} ({where.filename}:{where.lineno})"


# -- the checks --------------------------------------------------------------------------------------------------------


def options_load(name: str) -> str:
    method = methods.load(name)
    for preset in method.PRESETS:
        try:
            loading.resolve({"method": {"name": name, "preset": preset}}, method.Options, method.PRESETS)
        except InputError as error:
            raise Failed(f"preset {preset}: {error}") from None
    return f"presets {', '.join(method.PRESETS)} load"


def bytes_are_as_predicted(runs: Runs) -> str:
    """Without checkpoints; the run itself holds its ledger against the prediction."""
    looks = count()
    runs.play("straight", "checkpoint.every=0", asked=lambda: next(looks) < 0)
    runs.looks = next(looks)
    return "as predicted from the layouts, over all rounds"


def states_hold_everything(runs: Runs) -> str:
    runs.play("state", thorough=True)
    runs.same("state", "straight")
    return "every checkpoint holds all that server and clients keep"


def resumed_equals_straight(runs: Runs) -> str:
    pauses = 0
    while not runs.play("resumed", asked=after(runs.looks // (PAUSES + 1) + 1)):
        pauses += 1
    runs.same("resumed", "straight")
    return f"paused {pauses} times and resumed, it gives the results of a run without a pause"


def after(looks: int) -> Callable[[], bool]:
    """What asks a run to stop at the so many-th time that it looks."""
    seen = count(1)
    return lambda: next(seen) >= looks


def ranks_agree(runs: Runs, mpirun: str, environment: Mapping[str, str]) -> str:
    """They go on with what one rank has begun, and share what the server keeps, where a method's server can be shared."""
    runs.play("ranks", asked=after(runs.looks // 2))
    method, experiment = runs.resolved()
    shared = method.Server.by_columns(experiment.method.options) and experiment.compression == Compression()
    where = ["placement.server=all_ranks"] if shared else []
    command = [mpirun, "-n", str(RANKS), sys.executable, "-m", "fedstil_mpi.run", str(runs.config), *runs.settings]
    try:
        done = subprocess.run(
            [*command, *where, "name=ranks", "resume=auto"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{RANKS} ranks were not done after {LONGEST} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip(" -")] or ["nothing was said"]
        said = next((line for line in lines if line.startswith("fedstil_mpi: ")), lines[0])
        raise Failed(f"{RANKS} ranks ended with exit code {done.returncode}: {said.removeprefix('fedstil_mpi: ')}")
    runs.same("ranks", "straight")
    return f"{RANKS} ranks go on with what one began, and give its results"


def check(world: World, name: str, settings: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Print a line for each check; returns whether all of it holds. Raises InputError for what is no method, or no setting of it."""
    methods.load(name)
    with TemporaryDirectory(prefix="check_method-") as folder:
        runs = Runs(world, Path(folder), [f"method.name={name}", *settings])
        mpirun = find_mpirun()
        rest: dict[str, Callable[[], str]] = {
            "bytes": lambda: bytes_are_as_predicted(runs),
            "state": lambda: states_hold_everything(runs),
            "resume": lambda: resumed_equals_straight(runs),
        }
        if mpirun is not None:
            rest["ranks"] = lambda: ranks_agree(runs, mpirun, environment)
        good = passes("options", lambda: options_load(name))
        if good:
            method, experiment = runs.resolved()
            effects.check_effects(experiment, method)
        for what, work in rest.items():
            if not good:
                print(f"{what:8} not checked", flush=True)
            good = good and passes(what, work)
        if mpirun is None:
            print("ranks    not checked: there is no mpirun beside this Python nor on PATH")
    return good


def passes(what: str, work: Callable[[], str]) -> bool:
    """Print what comes of a check; returns whether it holds."""
    try:
        print(f"{what:8} {work()}", flush=True)
    except Failed as failed:
        print(f"{what:8} FAILED: {failed}", flush=True)
        return False
    return True


def find_mpirun() -> str | None:
    """mpirun beside this Python, else on PATH."""
    beside = Path(sys.executable).with_name("mpirun")
    return str(beside) if beside.exists() else shutil.which("mpirun")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser("fedstil_mpi.check_method", "Check a method of your own in a few tiny rounds.")
    parser.add_argument("method", help="a .py file, a module, or a built-in method's name")
    parser.add_overrides("for the tiny runs")
    parser.help_first(arguments)
    environment = SETTINGS | os.environ  # before MPI adds to it what must not reach another job
    with start() as world, world.verdict():
        given = parser.parse(arguments)
        if world.size > 1:
            raise InputError(f"{world.size} ranks; expected one: start it without mpirun, which it calls itself")
        good = check(world, given.method, given.overrides, environment)
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
