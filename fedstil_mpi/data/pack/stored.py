"""What a pack holds beside its pixels, read only after its size is known: whoever made the file may have made it to harm.

The seal shows that a file is as it was written. It does not show who wrote it.
"""

from math import prod

import h5py
import numpy as np


def dataset(file: h5py.File, name: str, at_most: int) -> h5py.Dataset:
    """A data set of numbers or texts of fixed length. Raises ValueError unless all its bytes, `at_most` so many, are there.

    Refused are links of any kind but an object's own name, storage in other files, data sets made of others, and filters:
    what is compressed can be of any size.
    """
    found = file
    for part in name.split("/"):
        if not isinstance(found.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"{name} is not there, or a link")
        found = found[part]
    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "iuS":
        raise ValueError(f"{name} is no data set of numbers or texts")
    how = found.id.get_create_plist()
    if how.get_layout() not in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT) or how.get_external_count():
        raise ValueError(f"{name} is not stored in one piece in this file")
    held, needed = found.id.get_storage_size(), prod(found.shape) * found.dtype.itemsize
    if held != needed or needed > at_most:
        raise ValueError(
            f"{name} has {held:,} bytes, but its shape {found.shape} needs {needed:,} of at most {at_most:,}"
        )
    return found


def array(file: h5py.File, name: str, at_most: int) -> np.ndarray:
    """All of such a data set."""
    return dataset(file, name, at_most)[()]


def number(file: h5py.File, name: str) -> int:
    """An attribute of the file that is a whole number. Raises ValueError for any other."""
    found = file.attrs.get_id(name)
    if found.shape != () or found.dtype.kind not in "iu":
        raise ValueError(f"the attribute {name} is no whole number")
    return int(file.attrs[name])
