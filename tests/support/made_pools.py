"""Images that never were, for tests of how streams are built."""

from pathlib import Path

import numpy as np

from fedstil_mpi.data.building.pool import Pool, pool
from fedstil_mpi.data.readers.records import ImageRecord


def records(counts):
    """So many images of each (person, camera), taken in the order of the dict."""
    made = []
    for (person, camera), count in counts.items():
        for _ in range(count):
            source = f"{camera}/{person}_{len(made):05}.jpg"
            made.append(ImageRecord(Path(source), source, str(person), str(camera), len(made)))
    return made


def made_pool(*sets):
    """The sets are called a, b, ...; each is given as for `records`."""
    return pool({chr(ord("a") + number): records(counts) for number, counts in enumerate(sets)})


def random_pool(seed) -> Pool:
    """Three sets of 1 to 4 cameras and 20 people; each is seen by one camera or more, 1 to 9 times by each."""
    draw = np.random.default_rng(seed)
    sets = []
    for cameras in (int(draw.integers(2, 5)), 2, 1):
        seen = draw.random((20, cameras)) < 0.6
        seen[np.arange(20), draw.integers(cameras, size=20)] = True
        sets.append({(int(p), int(c)): int(draw.integers(1, 10)) for p, c in draw.permutation(np.argwhere(seen))})
    return made_pool(*sets)
