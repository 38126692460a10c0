"""A file without a name, from which tensors are read, and to which they are written."""

import os
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from fedstil_mpi.util.files import storing


class TensorFile:
    """It lies where this host has temporary files (TMPDIR), and is gone with the object, however the process ends. Not collective."""

    def __init__(self, size: int = 0):
        """size: bytes for which there has to be space. Raises StorageError where there is not."""
        with storing(Path(tempfile.gettempdir())):
            self._file = tempfile.TemporaryFile(prefix="fedstil_mpi-", buffering=0)  # noqa: SIM115 (open as long as this is)
            if size and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self.number, 0, size)

    @property
    def number(self) -> int:
        """As the system knows it."""
        return self._file.fileno()

    def grow(self, size: int) -> None:
        """To so many bytes, which take no space yet. Raises StorageError."""
        with storing(Path(tempfile.gettempdir())):
            self._file.truncate(size)

    def read(self, into: Tensor, at: int) -> None:
        """Fill a dense tensor on the CPU with the bytes from there on. Raises OSError, EOFError where there are too few."""
        data = _bytes(into)
        while data:
            got = os.preadv(self.number, [data], at)
            if not got:
                raise EOFError(f"a temporary file ends at {at}, {len(data)} bytes too soon")
            data, at = data[got:], at + got

    def write(self, tensor: Tensor, at: int) -> None:
        """Put a dense tensor on the CPU there. Raises StorageError where there is no space.

        Not through a mapping: where the disk is full that would end the process.
        """
        data = _bytes(tensor)
        with storing(Path(tempfile.gettempdir())):
            while data:
                written = os.pwrite(self.number, data, at)
                data, at = data[written:], at + written


def _bytes(dense: Tensor) -> memoryview:
    flat = dense.detach().as_strided((dense.numel(),), (1,))
    return flat.view(torch.uint8).numpy().data
