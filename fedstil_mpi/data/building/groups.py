"""Ranks within groups, for all groups at once."""

import numpy as np


def places(groups: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The place of every element among those of its group, and how many those are; both int64 [n].

    `groups` int64 [n] names each element's group; a group's elements are sorted by `keys` [n], equal ones as they come,
    and counted from 0.
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.lexsort((keys, group))
    first = np.cumsum(sizes) - sizes
    place = np.empty(len(groups), np.int64)
    place[order] = np.arange(len(groups)) - first[group[order]]
    return place, sizes[group]
