"""Many image files, read ahead by threads: the pixels of each, and the hashes by which equal ones are found."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedstil_mpi.data.files.images import contents, decode
from fedstil_mpi.util.errors import InputError

WINDOW = 4
"""Files a thread that are read ahead; a decoded file waits for those before it."""


@dataclass(frozen=True)
class HashedImage:
    """What is in an image file."""

    pixels: np.ndarray
    """uint8 [height, width, 3]."""
    file_sha256: bytes
    pixels_sha256: bytes


def read_hashed(paths: Iterable[Path], height: int, width: int, threads: int) -> Iterator[HashedImage | InputError]:
    """The image in each file, in the order of `paths`, or why it cannot be read; a few are read ahead, by threads."""
    ahead: deque[Future[HashedImage | InputError]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for path in paths:
                ahead.append(pool.submit(_read_one, path, height, width))
                if len(ahead) >= WINDOW * threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _read_one(path: Path, height: int, width: int) -> HashedImage | InputError:
    try:
        content = contents(path)
        pixels = decode(content, path, height, width)
    except InputError as error:
        return error
    return HashedImage(pixels, hashlib.sha256(content).digest(), hashlib.sha256(pixels.data).digest())
