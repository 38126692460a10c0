"""A pack of eleven small pictures for two clients of one task."""

import hashlib

import h5py
import numpy as np

from fedstil_mpi.data.pack import seal, write_pack
from fedstil_mpi.data.pack.manifest import Manifest, Plan, Selection

HEIGHT, WIDTH = 4, 2
ABOUT = {"program": "a test", "nothing": "", "größe": "ä" * 70_000}
PIXELS = np.random.default_rng(0).integers(0, 256, (11, HEIGHT, WIDTH, 3), np.uint8)
SIZE = {"height": HEIGHT, "width": WIDTH}


def numbers(*values):
    return np.array(values, np.int64)


def hashed(pixels):
    digests = [hashlib.sha256(image.tobytes()).digest() for image in pixels]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


MANIFEST = Manifest(
    client=numbers(-1, -1, 0, 0, 0, 0, 1, 1, 1, 1, 1),
    task=numbers(-1, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0),
    role=np.array([3, 3, 0, 0, 1, 2, 0, 1, 2, 2, 2], np.uint8),
    person=numbers(900, 901, 5, 3, 5, 5, 7, 7, 5, 3, 5),
    camera=numbers(0, 1, 0, 0, 0, 0, 1, 1, 1, -1, 1),
    source=(*(f"set/{i}.jpg" for i in range(10)), "set/ä 10.jpg"),
    file_sha256=np.random.default_rng(1).integers(0, 256, (11, 32), np.uint8),
    pixels_sha256=hashed(PIXELS),
)
ROWS = {"train": ([3, 2], [6]), "query": ([4], []), "gallery": ([8, 9, 10, 5], [10, 5])}
"""Split -> the rows of client 0's only task, and of client 1's."""
SPLITS = {
    split: Selection(numbers(*first, *second), numbers(0, len(first), len(first) + len(second)))
    for split, (first, second) in ROWS.items()
}
PLAN = Plan(2, 1, MANIFEST, SPLITS)


def write(path, plan=PLAN, pixels=None, about=ABOUT):
    write_pack(path, plan, np.array_split(PIXELS, 3) if pixels is None else pixels, **SIZE, about=about)


def resealed(path, change):
    """The pack after `change` of its HDF5 contents, with a right seal again."""
    pixels = seal.check(path)
    with h5py.File(path, "r+") as file:
        change(file)
    write_sealed(path, path.read_bytes(), pixels)


def write_sealed(path, whole, pixels):
    """These bytes, with a right seal in place of their first."""
    before, after = whole[: pixels.start], whole[pixels.end :]
    path.write_bytes(seal.seal(before, after, pixels) + whole[seal.SIZE :])
