"""What the program prints: to standard error, and in a console as wide as logs are."""

import os
import sys
from pathlib import Path

from rich.console import Console

from fedstil_mpi.util.text import printable

COLUMNS = 100
"""Width of what is printed, so that logs look alike wherever they are made."""


def say(message: str) -> None:
    """Print one line of the program on standard error."""
    print(f"fedstil_mpi: {printable(message)}", file=sys.stderr, flush=True)


def console() -> Console:
    """A console on standard output: plain text unless a terminal shows it."""
    watched = is_watched()
    return Console(width=COLUMNS, force_terminal=watched, color_system="auto" if watched else None)


def show(line: str) -> None:
    """Print one line on standard output as it is, however long."""
    console().print(printable(line), soft_wrap=True, markup=False, highlight=False)


def is_watched() -> bool:
    """Whether standard output ends at a terminal.

    Open MPI's launcher gives its first rank a pseudo-terminal whatever becomes of the output, so under a launcher the
    question is where the launcher's own output goes.
    """
    if not sys.stdout.isatty():
        return False
    if "OMPI_COMM_WORLD_SIZE" not in os.environ:
        return True
    try:
        target = Path(f"/proc/{os.getppid()}/fd/1").readlink()
    except OSError:
        return False
    return target.parts[:2] == ("/", "dev") and target != Path("/dev/null")
