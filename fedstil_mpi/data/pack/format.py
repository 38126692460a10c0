"""What a pack holds. It is an HDF5 file with a seal in front, so that other programs can read it too.

    /pixels              uint8 [n, height, width, 3], RGB, contiguous
    /crc32               uint32 [n], of each image's pixels: checked whenever they are read
    /manifest/<column>   the columns of a Manifest; the sources as UTF-8 of fixed length
    /splits/<split>/rows, /splits/<split>/offsets
    /about               a JSON object of texts
    attributes of /      clients, tasks

What stands beside the pixels is small, some 200 bytes an image, and is written and read as a whole.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from fedstil_mpi.data.pack import seal
from fedstil_mpi.data.pack.manifest import COLUMNS, ROLES, Manifest, Plan, Selection
from fedstil_mpi.data.pack.stored import array, dataset, number
from fedstil_mpi.data.streams.base import SPLITS
from fedstil_mpi.util.errors import InputError

PIXELS = "pixels"
NUMBERS = {
    **dict.fromkeys(("client", "task", "person", "camera"), np.int64),
    **dict.fromkeys(("role", "file_sha256", "pixels_sha256"), np.uint8),
}
"""The manifest's columns but for the sources, and their types."""


@dataclass(frozen=True)
class Contents:
    """All of a pack but its pixels."""

    plan: Plan
    about: dict[str, str]
    crc32: np.ndarray
    """uint32 [n], of each image's pixels."""
    height: int
    width: int
    start: int
    """Where in the file the pixels begin, in bytes."""


def write_contents(file: h5py.File, plan: Plan, crc32: np.ndarray, about: Mapping[str, str]) -> None:
    """Writes all but the pixels. Raises InputError for a source that UTF-8 cannot hold."""
    file["crc32"] = crc32
    for name in NUMBERS:
        file[f"manifest/{name}"] = getattr(plan.manifest, name)
    sources = np.array([_encoded(source) for source in plan.manifest.source])
    file["manifest/source"] = sources.astype(h5py.string_dtype("utf-8", sources.itemsize))
    for split in SPLITS:
        file[f"splits/{split}/rows"] = plan.splits[split].rows
        file[f"splits/{split}/offsets"] = plan.splits[split].offsets
    file.attrs["clients"] = plan.clients
    file.attrs["tasks"] = plan.tasks
    file["about"] = np.bytes_(json.dumps(dict(about)))  # an attribute could hold 64 kB at most


def read(path: Path) -> Contents:
    """All of a pack but its pixels. Raises InputError for a file that is no pack, or not as it was written."""
    pixels = seal.check(path)
    try:
        contents = _parse(path, pixels.length, path.stat().st_size - pixels.length)
        check(contents.plan, len(contents.crc32))
        if (contents.start, len(contents.crc32) * contents.height * contents.width * 3) != pixels:
            raise ValueError("its pixels lie elsewhere")
    except (OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:  # h5py's, NumPy's
        raise InputError(
            f"{path} has a seal, but not the contents of a pack ({error}); expected what fedstil_mpi writes: build it again"
        ) from error
    return contents


def check(plan: Plan, count: int) -> None:
    """Raises ValueError for a plan that does not describe `count` images."""
    manifest = plan.manifest
    for name in COLUMNS:
        if len(getattr(manifest, name)) != count:
            raise ValueError(f"{len(getattr(manifest, name))} entries of {name} for {count} images")
    for name, dtype in NUMBERS.items():
        column = getattr(manifest, name)
        shape = (count, 32) if name.endswith("sha256") else (count,)
        if (column.dtype, column.shape) != (dtype, shape):
            raise ValueError(f"{name} is {column.dtype} {column.shape}, expected {np.dtype(dtype)} {shape}")
    if plan.clients < 1 or plan.tasks < 1:
        raise ValueError(f"{plan.clients} clients and {plan.tasks} tasks")
    if (manifest.role >= len(ROLES)).any():
        raise ValueError(f"role {manifest.role.max()}, but there are {len(ROLES)}")
    for split in SPLITS:
        rows, offsets = plan.splits[split].rows, plan.splits[split].offsets
        if not all(numbers.dtype == np.int64 and numbers.ndim == 1 for numbers in (rows, offsets)):
            raise ValueError(f"{split}: rows or offsets are not int64 [n]")
        if len(offsets) != plan.clients * plan.tasks + 1 or offsets[0] != 0 or offsets[-1] != len(rows):
            raise ValueError(
                f"{split}: {len(offsets)} offsets for {plan.clients} x {plan.tasks} tasks of {len(rows)} images"
            )
        if (np.diff(offsets) < 0).any() or (len(rows) and not 0 <= rows.min() <= rows.max() < count):
            raise ValueError(f"{split}: rows or offsets out of range")


def _parse(path: Path, pixel_bytes: int, other_bytes: int) -> Contents:
    """The file has so many bytes of pixels, and of all else."""
    with h5py.File(path, "r", locking=False) as file:  # not every file system of a cluster has locks
        pixels = dataset(file, PIXELS, pixel_bytes)
        _, height, width, channels = pixels.shape
        if (pixels.dtype, channels) != (np.uint8, 3):
            raise ValueError(f"pixels are {pixels.dtype} {pixels.shape}")
        read_all = partial(array, file, at_most=other_bytes)
        about = json.loads(read_all("about").item())
        if not isinstance(about, dict) or not all(isinstance(text, str) for text in about.values()):
            raise ValueError("about is not an object of texts")
        manifest = Manifest(
            source=tuple(source.decode() for source in read_all("manifest/source").tolist()),
            **{name: read_all(f"manifest/{name}") for name in NUMBERS},
        )
        splits = {s: Selection(read_all(f"splits/{s}/rows"), read_all(f"splits/{s}/offsets")) for s in SPLITS}
        plan = Plan(number(file, "clients"), number(file, "tasks"), manifest, splits)
        return Contents(plan, about, read_all("crc32"), height, width, pixels.id.get_offset())


def _encoded(source: str) -> bytes:
    try:
        return source.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the name of {source!r} is not valid UTF-8; expected text: rename the file") from error
