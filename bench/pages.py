"""What every page of numbers says of how it was made, where it goes, how works are timed, and how jobs are started."""

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

from fedstil_mpi.util.files import write_text
from fedstil_mpi.util.machine import cpu


def made_by(*packages: str) -> dict[str, str]:
    """The command, the machine, and the versions of Python and of these packages, to fill a page with."""
    versions = {package: version(package) for package in packages}
    command = " ".join([".venv/bin/python", *sys.argv])
    return {"command": command, "machine": cpu(), "python": platform.python_version(), **versions}


def show(page: str, output: Path | None) -> None:
    """Write a page to this file, or print it."""
    print(page, end="") if output is None else write_text(output, page)


def in_turns(works: Sequence[Callable[[], object]], repeats: int, first: int = 0) -> list[float]:
    """CPU milliseconds of each, median. first: how many come before, uncounted, as they also allocate and choose kernels."""
    times: list[list[float]] = [[] for _ in works]
    for turn in range(first + repeats):
        for work, of_work in zip(works, times, strict=True):
            began = time.process_time()
            work()
            if turn >= first:
                of_work.append(1000 * (time.process_time() - began))
    return [median(of_work) for of_work in times]


def on_ranks(ranks: int) -> list[str]:
    """The beginning of a command that starts this Python on so many ranks, by the launcher beside it if there is one."""
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    mpirun = shutil.which("mpirun", path=beside) or "mpirun"
    return [mpirun, "-n", str(ranks), "--bind-to", "none", "--oversubscribe", sys.executable]
