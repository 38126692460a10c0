"""Start Python programs under mpirun from tests."""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from support import TINY

SCRIPTS = Path(__file__).with_name("scripts")

SETTINGS = {
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",  # Open MPI 5: more ranks than cores
    "OMPI_MCA_rmaps_base_oversubscribe": "1",  # Open MPI 4
    "OMPI_MCA_btl": "^ofi",  # one host needs no fabric, and looking for one takes a second
    "OMPI_MCA_mtl": "^ofi",
    "OMP_NUM_THREADS": "1",
}


def mpirun(
    n: int,
    args: Sequence[str | Path],
    env: Mapping[str, str] | None = None,
    timeout: float = 60,
    options: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Run `python args...` (a script, or "-m", "module", ...) on n ranks; standard output and error as text.

    env: added to the environment; options: of mpirun. Skips the test where there is no mpirun; fails it after `timeout` seconds.
    """
    command = [find_mpirun(), "-n", str(n), "--bind-to", "none", *options, sys.executable, *map(str, args)]
    process = subprocess.Popen(
        command,
        env=environment(env),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        out, err = stop(process)
        pytest.fail(f"{' '.join(command)}\nnot done after {timeout} s\n{out}\n{err}")
    return subprocess.CompletedProcess(command, process.returncode, out, err)


ULFM = ("--with-ft", "ulfm")
"""Options with which mpirun lets ranks outlive others."""


def find_mpirun() -> str:
    """mpirun beside this Python, else on PATH."""
    if importlib.util.find_spec("mpi4py") is None:
        pytest.skip("mpi4py is not installed")
    beside = Path(sys.executable).with_name("mpirun")
    found = str(beside) if beside.exists() else shutil.which("mpirun")
    if found is None:
        pytest.skip("no mpirun beside this Python nor on PATH: pip install 'fedstil-mpi[mpi]'")
    return found


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment as mpirun needs it on a small machine; what is set already stays, `extra` wins."""
    settings = dict(SETTINGS)
    if os.geteuid() == 0:
        settings |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return {**settings, **os.environ, **(extra or {})}


def stop(process: subprocess.Popen[str]) -> tuple[str, str]:
    """End mpirun with TERM, so that it takes its ranks along, which it cannot do on KILL."""
    process.terminate()
    try:
        return process.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()


def kill_session(process: subprocess.Popen) -> None:
    """Kill a process that leads a session (start_new_session=True), and all that it has started, at once."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(int(folder.name)) == process.pid:
                os.kill(int(folder.name), signal.SIGKILL)


def alone(
    *args: str | Path, cwd: Path | None = None, timeout: float = 600, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run Python without mpirun, as a single rank; `env` is added to the environment."""
    find_mpirun()  # skips where MPI is not installed
    return subprocess.run(
        [sys.executable, *map(str, args)], cwd=cwd, env=environment(env),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip


def play(
    ranks: int,
    folder: Path,
    experiments: Mapping[str, Sequence[str]],
    *more: str,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Experiments from tiny.yaml, {name: overrides}, in one job; `more`: further arguments of scripts/play.py."""
    script = [SCRIPTS / "play.py", folder, TINY, json.dumps(experiments), *more]
    done = mpirun(ranks, script, env, timeout=600) if ranks > 1 else alone(*script, **(env or {}))
    assert done.returncode == 0, done.stderr
    return done


def codes(played: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """The exit code of each experiment of `play`."""
    return json.loads(played.stdout.splitlines()[-1])


def lines_of(text):
    """The program's own lines. mpirun ends its notices with a NUL, which may stand before ours."""
    return [line for line in text.replace("\0", "").splitlines() if line.startswith("fedstil_mpi:")]


def survivors(folder, ranks=3, patience=5.0):
    """Process ids of ranks that are still alive some seconds after mpirun has ended."""
    pids = [int(file.name) for file in folder.iterdir()]
    assert len(pids) == ranks
    end = time.monotonic() + patience
    while (alive := [pid for pid in pids if is_alive(pid)]) and time.monotonic() < end:
        time.sleep(0.05)
    return alive


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"  # dead, though nobody has asked for its exit code
