"""The exception for what the user can correct, and what its messages have in common."""

import difflib
import errno
from collections.abc import Iterable

from fedstil_mpi.util.text import one_line

INPUT_ERROR = 2
"""The exit code for what the user can correct."""
NOT_STORED = 74
"""The exit code for what the disk did not take (EX_IOERR): what was stored before is whole, and can be gone on from."""

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class InputError(Exception):
    """Bad input: a config, a data set, a launch or an output folder that cannot be used.

    The message is one line that says what was found, what was expected and the remedy. `comm.world` prints it once,
    without a traceback, and ends the job with exit code 2 on every rank. Whatever it quotes, it is one printable line.
    """

    code = INPUT_ERROR

    def __init__(self, message: str):
        super().__init__(one_line(message))


class StorageError(InputError):
    """A file that could not be written, because the disk is full or its folder is gone; ends the job with NOT_STORED."""

    code = NOT_STORED


def did_you_mean(found: object, known: Iterable[str], prefix: str = "") -> str:
    """ "did you mean NAME? " for the closest known name, to be put into a message; empty where none is close.

    prefix: what stands before the name.
    """
    close = difflib.get_close_matches(str(found), list(known), 1)
    return f"did you mean {prefix}{close[0]}? " if close else ""
