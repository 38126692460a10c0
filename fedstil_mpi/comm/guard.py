"""No failure leaves other ranks waiting: whatever goes wrong on one rank ends the whole job with a non-zero code.

Python alone does not do that. A rank that leaves by an exception or by sys.exit waits in MPI_Finalize for the others,
which wait for it in a collective; an exception in a thread is merely printed. Where the job was started so that ranks can
outlive others (ULFM), MPI_Abort and exit codes have no effect, and MPI_Finalize may hang: there a rank ends the job by
revoking `World.over`, and leaves without MPI_Finalize.
"""

import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from fedstil_mpi.comm.failures import GivenUp, OrderlyEnd, Overdue, Unread
from fedstil_mpi.comm.world import World
from fedstil_mpi.util.errors import DISK_FULL, InputError, StorageError
from fedstil_mpi.util.terminal import nobody_reads, to_nowhere

STUCK = 5.0
"""Seconds that MPI gets for what it may hang in where a link is cut."""


@contextmanager
def abort_on_error(world: World) -> Iterator[None]:
    """End the job if the block, or any thread, fails on this rank. All ranks enter.

    An exception: traceback, exit code 1. `sys.exit(n)`: the same with code n, but never 0, because the other ranks
    would be left waiting: end a rank by leaving the block. An InputError: its one line and its exit code. An OrderlyEnd
    passes. Where the others go on without a rank that fails, it ends itself alone.
    """

    def thread_failed(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):  # which ends the thread alone
            _end_job(world, args.exc_value)
            os._exit(_exit_code(args.exc_value))  # a single rank: sys.exit would end the thread alone

    before = threading.excepthook
    threading.excepthook = thread_failed
    try:
        yield
        sys.stdout.flush()
        _leave(world, 0)
    except OrderlyEnd as end:
        _leave(world, _exit_code(end))
        raise
    except GivenUp:
        os._exit(0)  # the code is that of the rank which gave up
    except BaseException as error:
        if nobody_reads(error):
            error = Unread()
        elif isinstance(error, OSError) and error.errno in DISK_FULL:  # what is printed; files' errors come named
            error = StorageError(f"the disk takes no more ({error.strerror}); free space, then go on with --resume")
            to_nowhere(1)  # what is left in its buffer would fail once more
        _end_job(world, error)
        raise SystemExit(_exit_code(error)) from None
    finally:
        threading.excepthook = before


@contextmanager
def watchdog(seconds: float = STUCK) -> Iterator[None]:
    """End this process with exit code 1 if the block takes longer, even where it holds Python's lock."""
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def _leave(world: World, code: int) -> None:
    """With ULFM, end this process: rank 0 with the code, the others without one, of which the launcher takes note."""
    if world.ulfm:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if world.is_server else 0)


def _end_job(world: World, error: BaseException) -> None:
    """Print what happened and where; with several ranks, end them all and never return."""
    try:
        sys.stdout.flush()
        sys.stderr.write(_report(world, error))
        sys.stderr.flush()
    finally:
        time.sleep(0.1)  # the launcher learns of the end on another way than it gets the text
        if world.outlived and not world.is_server and not isinstance(error, Overdue):
            os.kill(os.getpid(), signal.SIGKILL)  # nothing else has an effect
        if world.over is not None:
            _give_up(world, _exit_code(error))
        if world.size > 1:
            with watchdog():
                world.comm.Abort(_exit_code(error))


def _give_up(world: World, code: int) -> NoReturn:
    """End a job in which ranks can outlive others; the launcher takes note of this rank's code alone."""
    with watchdog():
        assert world.over is not None
        world.over.Revoke()
        for _ in range(20):
            world.is_broken()  # lets MPI pass it on
            time.sleep(0.025)
    _end_stopped()
    os._exit(code)


def _end_stopped() -> None:
    """End the ranks of this host that are stopped; no one would."""
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = file.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it has just ended
            continue
        if state == "T" and int(parent) == os.getppid():
            os.kill(int(file.parent.name), signal.SIGKILL)


def _report(world: World, error: BaseException) -> str:
    """One text, written at once, so that the lines of several failing ranks stay together."""
    if isinstance(error, Unread):
        return ""
    where = ", ".join(f"{name} {value}" for name, value in world.where.items())
    rank = f"rank {world.launched[world.rank]} on {world.host}"
    if isinstance(error, InputError):
        return f"fedstil_mpi: {error} ({rank}{', ' if where else ''}{where})\n"
    start = f"fedstil_mpi: {rank} failed{f' ({where})' if where else ''}: "
    if isinstance(error, Overdue):
        return f"{start}{error}\n"
    if world.is_loss(error):
        return f"{start}another rank has died\n"
    summary = f"{type(error).__name__}: {error}".splitlines()[0]
    return f"{start}{summary}\n" + "".join(traceback.format_exception(error))


def _exit_code(error: BaseException) -> int:
    if isinstance(error, InputError):
        return error.code
    code = error.code if isinstance(error, SystemExit) else 1
    return code if isinstance(code, int) and 0 < code < 256 else 1
