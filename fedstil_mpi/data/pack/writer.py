"""Writes packs.

libhdf5 crashes on a full disk, so it never writes to one: it makes everything but the pixels in memory. All bytes are
written to the disk here, where a failure is an ordinary error.
"""

import hashlib
import io
import os
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from fedstil_mpi.data.pack import seal
from fedstil_mpi.data.pack.format import PIXELS, check, write_contents
from fedstil_mpi.data.pack.manifest import Plan
from fedstil_mpi.data.pack.seal import Extent
from fedstil_mpi.data.pack.target import new_file
from fedstil_mpi.util.errors import InputError

BESIDE_PIXELS = 256
"""Bytes of an image beside its pixels, more than is usual: its row of the manifest and its places in the splits."""


def write_pack(
    path: Path, plan: Plan, pixels: Iterable[np.ndarray], *, height: int, width: int, about: Mapping[str, str]
) -> None:
    """Writes a new pack; `pixels` are blocks uint8 [b, height, width, 3] in the manifest's order.

    Raises InputError as `write` does, and if the pixels do not have the hashes of the manifest.
    """

    def confirmed(hashes: np.ndarray) -> Plan:
        changed = np.flatnonzero((hashes != plan.manifest.pixels_sha256).any(axis=1))
        if len(changed):
            raise InputError(
                f"{path} cannot be written: the pixels of {len(changed)} of {len(hashes)} images do not have the SHA-256 "
                f"that the manifest expects, the first is {plan.manifest.source[changed[0]]}; find what changed them"
            )
        return plan

    check(plan, len(plan.manifest))
    write(path, (len(plan.manifest), height, width), pixels, confirmed, about)


def write(
    path: Path,
    shape: tuple[int, int, int],
    pixels: Iterable[np.ndarray],
    plan_of: Callable[[np.ndarray], Plan],
    about: Mapping[str, str],
) -> None:
    """Writes a new pack whose plan may be known only when the pixels are: one block of them is in memory at a time.

    `shape` is the number of images, their height and their width; `plan_of` is called once, after the last block, with
    the pixels' SHA-256, uint8 [n, 32]. The same arguments give the same bytes. Raises InputError as `new_file` does, and
    ValueError for blocks or a plan that do not fit `shape`.
    """
    count, height, width = shape
    if count < 1:
        raise InputError(f"{path} would hold no images; expected a stream with some: name another one")
    memory = _Beside()
    with new_file(path, count * (3 * height * width + BESIDE_PIXELS)) as file:
        # Versions of HDF5's own format in which groups have no time stamps: the bytes depend on nothing else.
        with h5py.File(memory, "w", userblock_size=seal.SIZE, libver=("earliest", "v108")) as hdf5:
            memory.pixels = _reserve(hdf5, shape)
            hashes, crc32 = _pour(file, memory.pixels.start, pixels, shape)
            plan = plan_of(hashes)
            check(plan, count)
            write_contents(hdf5, plan, crc32, about)
        before, after = memory.halves()
        file.seek(memory.pixels.end)
        _put(file, memoryview(after))
        file.seek(0)
        _put(file, memoryview(seal.seal(before, after, memory.pixels) + before[seal.SIZE :]))


class _Beside(io.BytesIO):
    """A file in memory that skips the place of the pixels, which libhdf5 never touches."""

    pixels = Extent(1 << 62, 0)  # far away, until it is known where they lie

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return super().seek(offset - self.pixels.length if offset >= self.pixels.end else offset, whence)

    def truncate(self, size: int | None = None) -> int:
        return super().truncate(None if size is None else size - self.pixels.length)

    def halves(self) -> tuple[bytes, bytes]:
        """The bytes before the pixels, and those behind them."""
        return self.getvalue()[: self.pixels.start], self.getvalue()[self.pixels.start :]


def _reserve(hdf5: h5py.File, shape: tuple[int, int, int]) -> Extent:
    """Makes the data set of the pixels, without writing any."""
    count, height, width = shape
    space = h5py.h5s.create_simple((count, height, width, 3))
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    how.set_obj_track_times(False)
    how.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    how.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    data = h5py.h5d.create(hdf5.id, PIXELS.encode(), h5py.h5t.STD_U8LE, space, how)
    return Extent(data.get_offset(), count * height * width * 3)


def _pour(
    file: BinaryIO, start: int, pixels: Iterable[np.ndarray], shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Writes the blocks from `start` on; each image's SHA-256, uint8 [n, 32], and CRC-32, uint32 [n]."""
    count, height, width = shape
    hashes, crc32 = np.empty((count, 32), np.uint8), np.empty(count, np.uint32)
    file.seek(start)
    row = 0
    for block in pixels:
        if block.dtype != np.uint8 or block.shape[1:] != (height, width, 3) or row + len(block) > count:
            raise ValueError(f"a block {block.dtype} {block.shape} after {row} images, but the pack is {shape}")
        block = np.ascontiguousarray(block)
        _put(file, block.reshape(-1).data)
        for image in block:
            hashes[row] = np.frombuffer(hashlib.sha256(image).digest(), np.uint8)
            crc32[row] = zlib.crc32(image)
            row += 1
    if row != count:
        raise ValueError(f"{row} images for a pack of {count}")
    return hashes, crc32


def _put(file: BinaryIO, rest: memoryview) -> None:
    """Writes all of it; one call of the system may write less."""
    while rest:
        rest = rest[file.write(rest) :]
