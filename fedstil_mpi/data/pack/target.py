"""A new file: all of it or nothing."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.files import atomic

NO_SPACE = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


@contextmanager
def new_file(path: Path, needed: int) -> Iterator[BinaryIO]:
    """A file without buffer to write some `needed` bytes to. It gets its name when the block ends; else it is removed.

    Raises InputError for a `path` that exists or has no folder, for too little disk space, even beforehand, and for
    whatever else keeps the file from being written.
    """
    check_target(path)
    try:
        free = shutil.disk_usage(path.parent).free
        if free < needed:
            raise OSError(errno.ENOSPC, f"{free:,} bytes are free")
        with atomic(path, new=True) as partial:
            with partial.open("xb", buffering=0) as file:
                yield file
                os.fsync(file.fileno())
            check_target(path)  # somebody else may have written it meanwhile
    except OSError as error:
        if error.errno is None:  # not the system's, but an error of h5py
            raise
        if error.errno in NO_SPACE:
            raise InputError(
                f"{path} needs about {needed:,} bytes, but there is not enough disk space ({error.strerror}): free some or "
                "choose another place"
            ) from error
        raise InputError(f"{path} cannot be written ({error}); choose another place or mend this one") from error


def check_target(path: Path) -> None:
    """Raises InputError unless a new file can be written at `path`."""
    if os.path.lexists(path):
        raise InputError(f"{path} exists already; expected the name of a new file: choose another name")
    if not path.parent.is_dir():
        raise InputError(f"{path} cannot be written: {path.parent} is no folder; create it or choose another one")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"{path} cannot be written: {path.parent} is not writable; allow it or choose another folder")
