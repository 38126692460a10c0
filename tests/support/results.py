"""What two runs found, side by side."""

import json

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


def lines(folder):
    """metrics.jsonl without the times."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in found]


def equal(a, b):
    return np.array_equal(a, b, equal_nan=np.issubdtype(a.dtype, np.floating))


def different(found, expected):
    """The paths of the data sets that differ between two runs' results, which have to have the same ones."""
    assert found.keys() == expected.keys()
    return [
        path for path, array in expected.items() if found[path].dtype != array.dtype or not equal(found[path], array)
    ]
