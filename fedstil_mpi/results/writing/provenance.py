"""Where a run's numbers come from: which program, which command, which job."""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import fedstil_mpi

PATIENCE = 20.0
"""Seconds that git gets."""


def now() -> str:
    """The local time with its zone, ISO 8601, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def session(ranks: int, mpi: str | None) -> dict[str, Any]:
    """One process group's part of a run; what is not known is None. mpi: what its library calls itself."""
    return {
        "command": shlex.join(sys.orig_argv),
        "ranks": ranks,
        "mpi": mpi,
        "git": checkout(Path(fedstil_mpi.__file__).parent),
        "slurm_job": slurm_job(os.environ),
    }


def checkout(package: Path) -> dict[str, Any] | None:
    """Commit of the git checkout that a package's folder is part of, and whether its files differ from it."""
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:  # git does not know the package
        return None
    commit, changed = _git(package, "rev-parse", "HEAD"), _git(package, "status", "--porcelain", "--", ".")
    return None if commit is None or changed is None else {"commit": commit, "dirty": bool(changed)}


def slurm_job(environment: Mapping[str, str]) -> str | None:
    """As squeue shows it: 17, or 17_2 for a task of an array."""
    if "SLURM_ARRAY_JOB_ID" in environment and "SLURM_ARRAY_TASK_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment.get("SLURM_JOB_ID")


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None where there is no git, or it refuses."""
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
