"""Reads every file of the sets once: what it holds is hashed, scaled, and written to the scratch file."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedstil_mpi.data.building.scratch import Scratch
from fedstil_mpi.data.images import contents, decode
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.progress import Watch

WINDOW = 4
"""Files a thread that are read ahead; a decoded file waits for those before it."""


@dataclass(frozen=True)
class Picture:
    """What is in an image file."""

    pixels: np.ndarray
    """uint8 [height, width, 3]."""
    file_sha256: bytes
    pixels_sha256: bytes


@dataclass(frozen=True)
class Survey:
    """What was found in n files; k of them are kept: all that can be read and are not copies of an earlier one."""

    kept: np.ndarray
    """int64 [k], ascending, which file. Its pixels have the number 0 to k - 1 in the scratch file."""
    file_sha256: np.ndarray
    """uint8 [k, 32]."""
    pixels_sha256: np.ndarray
    """uint8 [k, 32]."""
    copies: dict[int, int]
    """File -> the earlier file with the same pixels."""
    unreadable: tuple[int, ...]
    """Files that were left out."""


def survey(
    paths: Sequence[Path], scratch: Scratch, *, threads: int, skip_unreadable: bool = False, watch: Watch = iter
) -> Survey:
    """Reads the files, scaled to the scratch file's size, and appends what is kept to it, in the order of `paths`.

    The result does not depend on the number of threads. Raises InputError naming the first file that cannot be read,
    unless such files are to be skipped.
    """
    first: dict[bytes, int] = {}
    hashes: list[bytes] = []
    copies: dict[int, int] = {}
    unreadable: list[int] = []
    height, width, _ = scratch.shape
    for number, found in enumerate(watch(pictures(paths, height, width, threads))):
        if isinstance(found, InputError):
            if not skip_unreadable:
                raise InputError(f"{found}, or leave such files out with --skip-unreadable")
            unreadable.append(number)
        elif found.pixels_sha256 in first:
            copies[number] = first[found.pixels_sha256]
        else:
            first[found.pixels_sha256] = number
            hashes.append(found.file_sha256)
            scratch.append(found.pixels)
    kept = np.fromiter(first.values(), np.int64, len(first))
    return Survey(kept, _table(hashes), _table(list(first)), copies, tuple(unreadable))


def pictures(paths: Iterable[Path], height: int, width: int, threads: int) -> Iterator[Picture | InputError]:
    """What is in each file, in the order of `paths`, or why it cannot be read; a few are read ahead, by threads."""
    ahead: deque[Future[Picture | InputError]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for path in paths:
                ahead.append(pool.submit(_look, path, height, width))
                if len(ahead) >= WINDOW * threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _look(path: Path, height: int, width: int) -> Picture | InputError:
    try:
        content = contents(path)
        pixels = decode(content, path, height, width)
    except InputError as error:
        return error
    return Picture(pixels, hashlib.sha256(content).digest(), hashlib.sha256(pixels.data).digest())


def _table(hashes: Sequence[bytes]) -> np.ndarray:
    """uint8 [n, 32]."""
    return np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 32).copy()
