"""One program at a time writes to a folder: it holds a lease, a file that it refreshes as long as it lives.

That needs no locks of the file system, which not every cluster has. A lease whose process has died is taken over: at once
if it was on this host, else when it was not refreshed for LASTS seconds.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import SoftFileLease, Timeout

from fedstil_mpi.util.errors import InputError, StorageError

NAME = "in-use.lock"
"""The file; what is left of taking one over has a name that begins like it."""
LASTS = 30.0


@contextmanager
def held(folder: Path, patience: float = 0.0) -> Iterator[Callable[[], None]]:
    """Hold the folder, which is made if need be, within the block; yields what raises StorageError once it is lost.

    patience: seconds to wait for another holder's end. Raises InputError where there is one, or where the folder cannot be
    made; StorageError where it is there, but takes no file. What was made and is empty in the end is removed.
    """
    made = [path for path in (folder, *folder.parents) if not os.path.isdir(path)]
    lease = SoftFileLease(folder / NAME, lease_duration=LASTS, thread_local=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lease.acquire(timeout=patience, poll_interval=0.2)
    except Timeout:
        owner = lease.owner
        who = f"process {owner.pid} on {owner.hostname}" if owner is not None else "another program"
        raise InputError(f"{folder} is in use by {who}; wait for its end, or choose another folder") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte
        reason = getattr(error, "strerror", None) or error
        if made:
            raise InputError(f"{folder} cannot be made ({reason}); choose another folder") from None
        raise StorageError(f"{folder} takes no file ({reason}): free space or allow it, then go on") from None

    def check() -> None:
        token = f"token={lease.token}"
        with suppress(OSError):
            if token in (folder / NAME).read_text().splitlines():
                return
        raise StorageError(
            f"{folder} is not held by this program any more: it was removed, renamed or taken over; go on with --resume "
            "where it is now"
        )

    try:
        yield check
    finally:
        with suppress(OSError):
            lease.release()
        with suppress(OSError):  # where there is something in it
            for path in made:
                path.rmdir()
