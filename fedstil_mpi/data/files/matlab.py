"""Images within a MATLAB file of CUHK03, which is HDF5: named as if they were files in a folder of its name.

    cuhk-03.mat/detected/1_001_1_01.png      pair of cameras, person, camera of the pair, image; all from 1

The file has cells `detected` and `labeled` of pairs, of people x 10 images, the first five by the first camera.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import h5py
from PIL import Image

from fedstil_mpi.util.errors import InputError

SUFFIX = ".mat"
NAME = re.compile(r"(?P<pair>[1-9])_(?P<person>[0-9]{3,4})_(?P<camera>[12])_(?P<image>[0-9]{2})\.(?i:png)")
OF_A_CAMERA = 5
LARGEST = 100_000_000
"""Bytes of an image."""


def names(file: Path, kind: str) -> Iterator[str]:
    """The images of one kind, detected or labeled. Raises InputError for a file that does not have them."""
    with _opened(file) as hdf5:
        for pair, of_pair in enumerate(hdf5[kind][0]):
            cell = hdf5[of_pair]
            for image, person in ((i, p) for p in range(cell.shape[1]) for i in range(cell.shape[0])):
                if hdf5[cell[image, person]].ndim == 3:  # else the cell is empty
                    yield f"{pair + 1}_{person + 1:03}_{image // OF_A_CAMERA + 1}_{image + 1:02}.png"


def content(path: Path) -> bytes:
    """One image, as the bytes of a BMP file. `path` is <MATLAB file>/<kind>/<name>. Raises InputError if it is not there."""
    match = NAME.fullmatch(path.name)
    file, kind = path.parent.parent, path.parent.name
    with _opened(file) as hdf5:
        if not match:
            raise ValueError(f"no image {path.name}")
        cell = hdf5[hdf5[kind][0][int(match["pair"]) - 1]]
        pixels = hdf5[cell[int(match["image"]) - 1, int(match["person"]) - 1]]
        if pixels.ndim != 3 or pixels.shape[0] != 3 or pixels.dtype != "u1" or pixels.size > LARGEST:
            raise ValueError(f"{path.name} is {pixels.dtype} {pixels.shape}")
        written = BytesIO()
        Image.fromarray(pixels[()].transpose(2, 1, 0)).save(written, "BMP")  # stored by columns, colours apart
        return written.getvalue()


@contextmanager
def _opened(file: Path) -> Iterator[h5py.File]:
    try:
        with h5py.File(file, "r", locking=False) as hdf5:
            yield hdf5
    except (OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:  # h5py's
        raise InputError(
            f"{file} cannot be read ({error}): expected the MATLAB 7.3 file of CUHK03's release; replace it or give a folder "
            "of images"
        ) from error
