"""Pixels on their way into a pack: written in the order in which they are read, read in the order of the manifest."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from fedstil_mpi.util.errors import InputError

BLOCK_BYTES = 8_000_000
"""About as much is read at a time."""


class Scratch:
    """Images of one size in a file without a name, so that nothing is left of it however the program ends.

    Plain writes and reads keep the resident memory small, where a map of the file would fill it. Raises InputError
    where the disk cannot take it.
    """

    def __init__(self, target: Path, height: int, width: int):
        """target: the file that the pixels are meant for; the scratch file lies in the same folder."""
        self.target, self.shape, self.count = target, (height, width, 3), 0
        try:
            self._file = tempfile.TemporaryFile(dir=target.parent, prefix=f".{target.name}.")  # noqa: SIM115
        except OSError as error:
            raise self._refusal(error) from None

    def __enter__(self) -> "Scratch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        except OSError as refused:  # what was left to write; the block's own failure counts
            if error is None:
                raise self._refusal(refused) from None

    def append(self, pixels: np.ndarray) -> None:
        """uint8 [height, width, 3]; the first is number 0."""
        try:
            self._file.write(np.ascontiguousarray(pixels).data)
        except OSError as error:
            raise self._refusal(error) from None
        self.count += 1

    def blocks(self, numbers: np.ndarray) -> Iterator[np.ndarray]:
        """The images of these numbers in this order, uint8 [b, height, width, 3] at a time; none may be appended now."""
        try:
            self._file.flush()
        except OSError as error:
            raise self._refusal(error) from None
        size = int(np.prod(self.shape))
        step = max(1, BLOCK_BYTES // size)
        for start in range(0, len(numbers), step):
            block = np.empty((len(numbers[start : start + step]), *self.shape), np.uint8)
            for row, number in zip(block, numbers[start : start + step].tolist(), strict=True):
                if os.preadv(self._file.fileno(), [row.data], number * size) != size:
                    raise RuntimeError(f"image {number} of {self.count} is not in the scratch file")
            yield block

    def _refusal(self, error: OSError) -> InputError:
        return InputError(
            f"{self.target.parent} takes no scratch file for {self.target.name}, or no more of it after {self.count} "
            f"images ({error.strerror}); expected a folder with disk space for all pixels twice: free some or choose another "
            "--out"
        )
