"""What two runs found, side by side."""

import h5py
import numpy as np


def results(folder):
    """Every data set of a run's results.h5 but the times, by path."""
    arrays = {}

    def note(path, item):
        if isinstance(item, h5py.Dataset) and not path.startswith("seconds/"):
            arrays[path] = item[()]

    with h5py.File(folder / "results.h5") as file:
        file.visititems(note)
    return arrays


def equal(a, b):
    return np.array_equal(a, b, equal_nan=np.issubdtype(a.dtype, np.floating))


def different(found, expected):
    """The paths of the data sets that differ between two runs' results, which have to have the same ones."""
    assert found.keys() == expected.keys()
    return [
        path for path, array in expected.items() if found[path].dtype != array.dtype or not equal(found[path], array)
    ]
