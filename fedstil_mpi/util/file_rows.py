"""A matrix of rows for many clients, in a file: in memory are those of its numbers alone that are in use."""

import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedstil_mpi.util.files import storing
from fedstil_mpi.util.shelf import RESIDENT


class FileRows:
    """[rows, scalars], which gives and takes tensors by index, as a tensor does.

    The file lies where this host has temporary files (TMPDIR), has no name, and is gone with the matrix. Not collective.
    """

    def __init__(self, rows: int, scalars: int, dtype: torch.dtype = torch.float32):
        """Of no value yet. Raises StorageError where there is no space for all of it."""
        self.shape = torch.Size((rows, scalars))
        self.dtype = dtype
        size = max(1, self.shape.numel() * dtype.itemsize)
        with storing(Path(tempfile.gettempdir())), tempfile.TemporaryFile(prefix="fedstil_mpi-", buffering=0) as file:
            if hasattr(os, "posix_fallocate"):  # where the disk were full later, the process would end
                os.posix_fallocate(file.fileno(), 0, size)
            file.truncate(size)
            self._mapped = mmap.mmap(file.fileno(), size)
        read = torch.frombuffer(self._mapped, dtype=torch.uint8)[: self.shape.numel() * dtype.itemsize]
        self._rows = read.view(dtype).view(self.shape)
        self._taken = 0
        """Bytes since they were let go of last."""

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, index: Any) -> Tensor:
        self._let_go()
        part = self._rows[index]
        self._taken += part.nbytes
        return part

    def __setitem__(self, index: Any, values: Tensor) -> None:
        self._let_go()
        self._rows[index] = values
        self._taken += values.nbytes

    def filled(self, rows: Iterable[Tensor]) -> "FileRows":
        """Itself, with these rows, as many as it has."""
        for place, row in zip(range(len(self)), rows, strict=True):
            self[place] = row
        return self

    def _let_go(self) -> None:
        """Of what was taken so far, which is read again where it is still used."""
        if self._taken > RESIDENT:
            self._mapped.madvise(mmap.MADV_DONTNEED)
            self._taken = 0
