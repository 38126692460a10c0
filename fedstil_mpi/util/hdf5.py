"""HDF5 files with a checksum in front, made and parsed in memory.

libhdf5 crashes on a full disk, does not open files where the file system has no locks, and damaged bytes can keep it busy
for ever. So it never sees the disk: a file is written as a whole, and parsed only if its SHA-256 is the one in front of
it, where HDF5 leaves some bytes to others (its user block). Other programs open such a file as any other.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import h5py

from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.files import regular_file

FRONT = 512
"""Bytes in front of the HDF5 file, the fewest that it leaves."""
BEGINS = b"fedstil_mpi: SHA-256 of what follows these 512 bytes: "
HDF5 = b"\x89HDF\r\n\x1a\n"
AT_MOST = 4 << 30
"""Bytes of a file that is read."""


def made(fill: Callable[[h5py.File], None]) -> bytes:
    """The bytes of a file with what `fill` puts into it."""
    memory = BytesIO()
    with h5py.File(memory, "w", userblock_size=FRONT) as file:
        fill(file)
    content = memory.getbuffer()[FRONT:]
    return _front(content) + content


@contextmanager
def parsed(path: Path, what: str) -> Iterator[h5py.File]:
    """The file, in memory. what: for messages, "results". Raises InputError where it is not as it was written.

    A file that begins as HDF5 itself has no checksum; it is parsed as it is.
    """
    data = regular_file(path, f"{what} file", AT_MOST).read_bytes()
    if not data.startswith(HDF5) and data[:FRONT] != _front(memoryview(data)[FRONT:]):
        raise InputError(
            f"{path} is damaged, or holds no {what}: it does not have the SHA-256 with which they are written; copy it here "
            "again, or run again under another name="
        )
    try:
        with h5py.File(BytesIO(data)) as file:
            yield file
    except (OSError, LookupError, ValueError, TypeError, RuntimeError) as error:  # h5py's, and NumPy's of other shapes
        raise InputError(
            f"{path} does not hold {what} ({error}); expected a file that this program has written"
        ) from None


def has_checksum(path: Path) -> bool:
    """Whether damage to the file would be noticed. Raises OSError."""
    with path.open("rb") as file:
        return file.read(len(BEGINS)) == BEGINS


def _front(content: memoryview) -> bytes:
    return (BEGINS + hashlib.sha256(content).hexdigest().encode()).ljust(FRONT, b"\0")
