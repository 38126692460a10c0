"""Whether queries can be found at all, from labels alone: a stream in which none can would be trained on for nothing."""

from collections.abc import Callable, Sequence

import numpy as np

from fedstil_mpi.data.streams.base import Task


def is_searchable(
    clients: Sequence[Sequence[Task]], scope: str, protocol: str, share: Callable[[np.ndarray], np.ndarray]
) -> bool:
    """Whether any query of these clients, given by their tasks, has a match where it is searched.

    scope, protocol: of `evaluation.gallery`, and `evaluation.protocol`. share: rows of each rank -> rows of all ranks, on
    every rank. Collective where the scope is all: all ranks must call.
    """
    groups = [[task] for tasks in clients for task in tasks] if scope == "task" else clients
    queries, galleries = ([_labels(group, split) for group in groups] for split in ("query", "gallery"))
    if scope == "all":
        own = np.concatenate([np.empty((0, 2), np.int64), *galleries])
        galleries = [share(np.unique(own, axis=0))] * len(groups)
    pairs = zip(queries, galleries, strict=True)
    return any(have_match(query, gallery, protocol == "market").any() for query, gallery in pairs)


def _labels(tasks: Sequence[Task], split: str) -> np.ndarray:
    return np.concatenate([getattr(task, split).labels for task in tasks])


def have_match(query: np.ndarray, gallery: np.ndarray, market: bool) -> np.ndarray:
    """bool [q]: which queries have a match in the gallery. Both are persons and cameras, int64 [n, 2].

    market: a match at the query's own camera is none, unless that camera is unknown.
    """
    cameras: dict[int, set[int]] = {}
    for person, camera in np.unique(gallery, axis=0).tolist():
        cameras.setdefault(person, set()).add(camera)
    own = [{camera} if market and camera >= 0 else set() for camera in query[:, 1].tolist()]
    return np.array([bool(cameras.get(p, set()) - its) for p, its in zip(query[:, 0].tolist(), own, strict=True)], bool)
