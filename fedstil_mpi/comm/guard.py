"""No failure leaves other ranks waiting: whatever goes wrong on one rank ends the whole job with a non-zero code.

Python alone does not do that. A rank that leaves by an exception or by sys.exit waits in MPI_Finalize for the others,
which wait for it in a collective; an exception in a thread is merely printed.
"""

import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fedstil_mpi.errors import InputError

if TYPE_CHECKING:
    from fedstil_mpi.comm.world import World

INPUT_ERROR = 2
"""The exit code for what the user can mend."""


class OrderlyEnd(SystemExit):
    """All ranks leave together, so MPI is finalised and nothing is aborted."""

    def __init__(self) -> None:
        super().__init__(INPUT_ERROR)


def say(message: str) -> None:
    """One line of the program on standard error."""
    print(f"fedstil_mpi: {message}", file=sys.stderr, flush=True)


@contextmanager
def abort_on_error(world: "World") -> Iterator[None]:
    """End the job if the block, or any thread, fails on this rank. All ranks enter.

    An exception: traceback, exit code 1. `sys.exit(n)`: the same with code n, but never 0, because the other ranks
    would be left waiting: end a rank by leaving the block. An InputError: its one line, exit code 2. An OrderlyEnd
    passes.
    """

    def thread_failed(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):  # which ends the thread alone
            _end_job(world, args.exc_value)
            os._exit(_exit_code(args.exc_value))  # a single rank: sys.exit would end the thread alone

    before = threading.excepthook
    threading.excepthook = thread_failed
    try:
        yield
    except OrderlyEnd:
        raise
    except BaseException as error:
        _end_job(world, error)
        raise SystemExit(_exit_code(error)) from None
    finally:
        threading.excepthook = before


def _end_job(world: "World", error: BaseException) -> None:
    """Print what happened and where; with several ranks, abort them all and never return."""
    try:
        sys.stdout.flush()
        sys.stderr.write(_report(world, error))
        sys.stderr.flush()
    finally:
        if world.size > 1:
            time.sleep(0.1)  # the launcher hears of the abort on another way than it gets the text
            world.comm.Abort(_exit_code(error))


def _report(world: "World", error: BaseException) -> str:
    """One text, written at once, so that the lines of several failing ranks stay together."""
    where = ", ".join(f"{name} {value}" for name, value in world.where.items())
    rank = f"rank {world.rank} on {world.host}"
    if isinstance(error, InputError):
        return f"fedstil_mpi: {error} ({rank}{', ' if where else ''}{where})\n"
    summary = f"{type(error).__name__}: {error}".splitlines()[0]
    return f"fedstil_mpi: {rank} failed{f' ({where})' if where else ''}: {summary}\n" + "".join(
        traceback.format_exception(error)
    )


def _exit_code(error: BaseException) -> int:
    if isinstance(error, InputError):
        return INPUT_ERROR
    code = error.code if isinstance(error, SystemExit) else 1
    return code if isinstance(code, int) and 0 < code < 256 else 1
