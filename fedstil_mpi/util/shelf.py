"""Tensors that nobody needs for now, in a file: in memory are those alone that are in use."""

import mmap
from collections import defaultdict
from collections.abc import Hashable, Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from fedstil_mpi.util.tensor_file import TensorFile

K = TypeVar("K", bound=Hashable)
T = TypeVar("T", Tensor, Tensor | None)

EXTENT = 1 << 28
"""Bytes that are mapped at a time: a system allows a process so many mappings and no more."""
ALIGNED = 64
"""Bytes. As torch aligns its tensors: the last bit of a product can depend on it."""
RESIDENT = 1 << 26
"""About how many bytes that were taken from a shelf count as this process's memory before it lets go of them."""


class Slot(NamedTuple):
    extent: int
    offset: int
    capacity: int
    """Bytes."""


class Shelf(MutableMapping[K, Tensor]):
    """Key -> a tensor on the CPU, with the strides that it had if it is dense, in the order in which keys came first.

    What is taken from a shelf is read from its file as it is used. It must not be changed, and holds until its key is set
    again. The file (`TensorFile`) begins with the first tensor. Not collective.
    """

    def __init__(self, unwritten: int = 0) -> None:
        """unwritten: so many bytes of what was set last stay in memory as they are, and must not change: what is set again before
        others have taken its place is never written.
        """
        self._unwritten = unwritten
        self._newest: dict[K, Tensor] = {}
        """What is not in the file, or not as it was set last, oldest first."""
        self._file: TensorFile | None = None
        self._extents: list[mmap.mmap] = []
        self._size = 0
        """Of the file, in bytes."""
        self._free = 0
        """Bytes of the last extent that nobody has."""
        self._slots: dict[K, Slot] = {}
        self._spare: defaultdict[int, list[Slot]] = defaultdict(list)
        """Capacity -> places that nobody has any more."""
        self._forms: dict[K, Tensor] = {}
        """Key -> a tensor on the device meta, with the dtype, shape and strides that it has when it comes from the file."""
        self._taken = 0
        """Bytes since the last release."""

    def __setitem__(self, key: K, tensor: Tensor) -> None:
        """Raises StorageError where there is no space."""
        self._forms[key] = torch.empty_like(tensor, device="meta")  # dense, with its strides where it is dense
        if not self._unwritten:
            self._copy(key, tensor)
            return
        self._newest.pop(key, None)
        self._newest[key] = tensor.detach()
        while sum(newest.nbytes for newest in self._newest.values()) > self._unwritten:
            oldest = next(iter(self._newest))
            self._copy(oldest, self._newest.pop(oldest))

    def _copy(self, key: K, tensor: Tensor) -> None:
        """Into the file."""
        form = self._forms[key]
        if not form.numel():
            return
        flat = (
            torch.empty_like(form, device="cpu").copy_(tensor.detach()) if tensor.stride() != form.stride() else tensor
        )
        slot = self._slots.get(key)
        if slot is None or slot.capacity < flat.nbytes:
            slot = self._slots[key] = self._new(flat.nbytes)
        assert self._file is not None
        self._file.write(flat, self._place(slot))

    def __getitem__(self, key: K) -> Tensor:
        if key in self._newest:
            return self._newest[key]
        form = self._forms[key]
        if not form.numel():
            return torch.empty_like(form, device="cpu")
        self._taken += form.nbytes
        if self._taken > RESIDENT:
            self.release()
        slot = self._slots[key]
        flat = torch.frombuffer(self._extents[slot.extent], dtype=form.dtype, count=form.numel(), offset=slot.offset)
        return flat.as_strided(form.shape, form.stride())

    def part(self, key: K, numbers: slice) -> Tensor:
        """A copy of some numbers of a vector [n]. They are read, not mapped: around them a mapping would take in up to all."""
        if key in self._newest:
            return self._newest[key][numbers].clone()
        form = self._forms[key]
        start, stop, _ = numbers.indices(len(form))
        found = torch.empty(stop - start, dtype=form.dtype)
        if len(found):
            assert self._file is not None
            self._file.read(found, self._place(self._slots[key]) + start * form.itemsize)
        return found

    def __delitem__(self, key: K) -> None:
        """Its place in the file is for what is as large."""
        del self._forms[key]
        if slot := self._slots.get(key):
            self._spare[slot.capacity].append(slot)
        for where in (self._newest, self._slots):
            where.pop(key, None)

    def __contains__(self, key: object) -> bool:
        return key in self._forms

    def __iter__(self) -> Iterator[K]:
        return iter(self._forms)

    def __len__(self) -> int:
        return len(self._forms)

    def release(self) -> None:
        """What was read so far counts as this process's memory no more; it is read again when it is used."""
        for extent in self._extents:
            extent.madvise(mmap.MADV_DONTNEED)
        self._taken = 0

    def _new(self, size: int) -> Slot:
        """A place for so many bytes, at the end unless there is one of just this size."""
        capacity = -(-size // ALIGNED) * ALIGNED
        if spare := self._spare[capacity]:
            return spare.pop()
        if self._file is None:
            self._file = TensorFile()
        if capacity > self._free:
            length = -(-max(capacity, EXTENT) // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
            self._file.grow(self._size + length)
            self._extents.append(mmap.mmap(self._file.number, length, offset=self._size))
            self._size, self._free = self._size + length, length
        slot = Slot(len(self._extents) - 1, len(self._extents[-1]) - self._free, capacity)
        self._free -= capacity
        return slot

    def _place(self, slot: Slot) -> int:
        """Where it begins in the file."""
        return sum(map(len, self._extents[: slot.extent])) + slot.offset


@dataclass(frozen=True)
class Compartment:
    """What one client has on a shelf."""

    shelf: Shelf[tuple[int, Hashable]]
    client: int
    names: set[Hashable] = field(default_factory=set)

    def put(self, name: Hashable, tensor: T) -> T:
        """The same tensor, where it lies on the shelf from now on, if it does not already; None: there is none."""
        if tensor is None:
            return tensor
        key = self.client, name
        if name in self.names and self.shelf[key].data_ptr() == tensor.data_ptr():
            return tensor
        self.names.add(name)
        self.shelf[key] = tensor
        return self.shelf[key]

    def clear(self) -> None:
        """Of what lies there nothing must be in use any more."""
        for name in self.names:
            del self.shelf[self.client, name]
        self.names.clear()
