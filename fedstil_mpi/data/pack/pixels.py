"""Copies pixels out of a pack."""

from itertools import pairwise
from pathlib import Path

import numpy as np

from fedstil_mpi.data.pack.format import Contents
from fedstil_mpi.util.errors import InputError


def copied(path: Path, contents: Contents, rows: np.ndarray) -> np.ndarray:
    """The images of these rows, uint8 [len(rows), height, width, 3]. Raises InputError if the file has shrunk or gone.

    Rows that follow each other are copied in one go. The file is mapped into memory for the time of the call alone.
    """
    size = contents.height, contents.width, 3
    pixels = np.empty((len(rows), *size), np.uint8)
    if len(rows) == 0:
        return pixels
    try:
        stored = np.memmap(path, np.uint8, "r", contents.start, (len(contents.crc32), *size))
    except (OSError, ValueError) as error:  # ValueError: shorter than what shall be mapped
        raise InputError(
            f"{path} has changed since it was opened ({error}); expected that a pack stays as it is: build it again"
        ) from error
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    for begin, end in pairwise([0, *breaks.tolist(), len(rows)]):
        first = int(rows[begin])
        pixels[begin:end] = stored[first : first + end - begin]
    return pixels
