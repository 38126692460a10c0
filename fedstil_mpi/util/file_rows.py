"""A matrix of rows for many clients, in a file: in memory are copies of what is asked for, as long as they are used."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from fedstil_mpi.util.tensor_file import TensorFile

Index = int | list[int] | tuple[slice, slice]
"""A row, several rows, or columns of all rows: [:, columns]."""


class FileRows:
    """[rows, scalars], which gives copies and takes tensors by `Index`, as a tensor does.

    The file (`TensorFile`) is read and written, not mapped: of a mapping the pages around a few columns of each row would come
    in, too, up to all there are. Not collective.
    """

    def __init__(self, rows: int, scalars: int, dtype: torch.dtype = torch.float32):
        """Of no value yet. Raises StorageError where there is no space for all of it."""
        self.shape = torch.Size((rows, scalars))
        self.dtype = dtype
        self._file = TensorFile(self.shape.numel() * dtype.itemsize)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, index: Index) -> Tensor:
        rows, columns = self._chosen(index)
        found = torch.empty(len(rows), columns.stop - columns.start, dtype=self.dtype)
        for row, into in zip(rows, found, strict=True):
            self._file.read(into, self._place(row, columns))
        return found[0] if isinstance(index, int) else found

    def __setitem__(self, index: Index, values: Tensor) -> None:
        """values: of as many rows and columns, of one row without the first axis. Raises StorageError where they cannot be written."""
        rows, columns = self._chosen(index)
        values = values.to(self.dtype).reshape(len(rows), columns.stop - columns.start).contiguous()
        for row, of_row in zip(rows, values, strict=True):
            self._file.write(of_row, self._place(row, columns))

    def filled(self, rows: Iterable[Tensor]) -> "FileRows":
        """Itself, with these rows, as many as it has."""
        for place, row in zip(range(len(self)), rows, strict=True):
            self[place] = row
        return self

    def _chosen(self, index: Index) -> tuple[Sequence[int], slice]:
        if isinstance(index, int):
            return [index], slice(0, self.shape[1])
        if isinstance(index, list):
            return index, slice(0, self.shape[1])
        rows, columns = index
        return range(len(self))[rows], slice(*columns.indices(self.shape[1])[:2])

    def _place(self, row: int, columns: slice) -> int:
        return (row * self.shape[1] + columns.start) * self.dtype.itemsize
