"""What the program prints: to standard error, and in a console as wide as logs are."""

import os
import select
import signal
import sys
from io import StringIO
from pathlib import Path
from typing import Any, Literal

from rich.console import Console, RenderableType
from rich.text import Text

from fedstil_mpi.util.text import one_line, printable, printable_lines

COLUMNS = 100
"""Width of what is printed, so that logs look alike wherever they are made."""

Detail = Literal["brief", "usual", "lines"]
"""How much of a run is printed: two lines | its tables, and how far it is, as a bar where a person watches, else as lines |
the same, with lines everywhere."""


def say(message: str) -> None:
    """Print one line of the program on standard error."""
    print(f"fedstil_mpi: {one_line(message)}", file=sys.stderr, flush=True)


class _Console(Console):
    """Texts are shown as they are: no markup is read from them, and what is no visible character is written as in Python.

    In a notebook, too, it prints text, to its file: rich would show it there and leave the file, such as a log, empty.
    """

    def __init__(self, **options: Any):
        super().__init__(width=COLUMNS, markup=False, emoji=False, force_jupyter=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable_lines(text), **options)

    def on_broken_pipe(self) -> None:
        raise


def console() -> Console:
    """A console on standard output: plain text unless a terminal shows it. Bold and the like are for `style=`."""
    watched = is_watched()
    return _Console(force_terminal=watched, color_system="auto" if watched else None)


def as_text(*shown: RenderableType) -> str:
    """What a console prints of texts and tables where no terminal shows it, each ended by a line end."""
    text = StringIO()
    plain = _Console(file=text, color_system=None)
    for one in shown:
        plain.print(one, soft_wrap=isinstance(one, str))
    return text.getvalue()


def show(line: str) -> None:
    """Print one line on standard output, however long."""
    console().print(printable(line), soft_wrap=True, highlight=False)


NOBODY_READS = 128 + signal.SIGPIPE
"""The exit code of a program whose output goes into a closed pipe, as in `plan ... | head -1`."""


def nobody_reads(error: BaseException) -> bool:
    """Whether the error means that the pipe is closed into which the program prints; from then on it prints to nowhere."""
    if not isinstance(error, BrokenPipeError):
        return False
    poll = select.poll()
    for stream in (1, 2):
        poll.register(stream, 0)
    closed = [stream for stream, event in poll.poll(0) if event & select.POLLERR]
    for stream in closed:
        to_nowhere(stream)
    return bool(closed)


def to_nowhere(stream: int) -> None:
    """Let what is written to this file descriptor from now on, a buffer's rest at the end included, vanish."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def open_output() -> None:
    """Let a program print to nowhere that was started without standard output or error, as by `>&-`."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - to the end of the process


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
