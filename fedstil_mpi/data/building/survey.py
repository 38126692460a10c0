"""Reads every file of the sets once: what it holds is hashed, scaled, and written to the scratch file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedstil_mpi.data.building.scratch import Scratch
from fedstil_mpi.data.files.hashed import read_hashed
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.progress import Watch


@dataclass(frozen=True)
class Survey:
    """What was found in n files; k of them are kept: all that can be read and whose pixels no earlier one has."""

    kept: np.ndarray
    """int64 [k], ascending, which file. Its pixels have the number 0 to k - 1 in the scratch file."""
    file_sha256: np.ndarray
    """uint8 [k, 32]."""
    pixels_sha256: np.ndarray
    """uint8 [k, 32]."""
    duplicates: dict[int, int]
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
    duplicates: dict[int, int] = {}
    unreadable: list[int] = []
    height, width, _ = scratch.shape
    for number, found in enumerate(watch(read_hashed(paths, height, width, threads))):
        if isinstance(found, InputError):
            if not skip_unreadable:
                raise InputError(f"{found}, or leave such files out with --skip-unreadable")
            unreadable.append(number)
        elif found.pixels_sha256 in first:
            duplicates[number] = first[found.pixels_sha256]
        else:
            first[found.pixels_sha256] = number
            hashes.append(found.file_sha256)
            scratch.append(found.pixels)
    kept = np.fromiter(first.values(), np.int64, len(first))
    return Survey(kept, _table(hashes), _table(list(first)), duplicates, tuple(unreadable))


def _table(hashes: Sequence[bytes]) -> np.ndarray:
    """uint8 [n, 32]."""
    return np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 32).copy()
