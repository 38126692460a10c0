"""The images as they are stored: in which order, by which numbers, and which of them make up each task."""

from dataclasses import dataclass

import numpy as np

from fedstil_mpi.data.building.pool import Pool
from fedstil_mpi.data.pack.manifest import ROLES, Selection
from fedstil_mpi.data.streams.base import SPLITS


@dataclass(frozen=True)
class Division:
    """The stored images in the order of the manifest: by client, task, role, person, source."""

    rows: np.ndarray
    """int64 [m], the pool's row of each. An image can be stored in several roles, by the protocol "reference_code" only."""
    role: np.ndarray
    """uint8 [m], an index of ROLES."""
    person: np.ndarray
    """int64 [m], numbers without gaps. Those who are trained on come first: a classifier needs no more classes."""
    camera: np.ndarray
    """int64 [m], numbers without gaps; -1 in a set with a single camera, see `known_cameras`."""
    splits: dict[str, Selection]
    """Split -> which of the stored images, 0 to m - 1, are in it."""


def known_cameras(pool: Pool) -> np.ndarray:
    """int64 [n], numbered without gaps; -1 in a set with a single camera.

    With a number all images of a person there would be junk for each other, and nobody could be searched for.
    """
    first = np.unique(pool.cameras, return_index=True)[1]  # an image of each camera
    several = np.bincount(pool.sets[first])[pool.sets] > 1
    camera = np.full(len(pool), -1)
    camera[several] = np.unique(pool.cameras[several], return_inverse=True)[1]
    return camera


def arrange(
    pool: Pool,
    number: np.ndarray,
    numbers: int,
    rows: np.ndarray,
    role: np.ndarray,
    searched: tuple[np.ndarray, np.ndarray],
) -> Division:
    """Puts the stored images in order and lists the images of every task.

    `number`, int64 [n], is the client * tasks + task of each image of the pool, one of 0 to `numbers` - 1; `rows` and
    `role`, both [m], are what to store. `searched` are pairs, a task's number and the pool's row of an image in its
    gallery, both int64 [any]; each such row must be among those stored as gallery.
    """
    person = _trained_first(pool.pids[rows], role == ROLES.index("train"))
    order = np.lexsort((rows, person, role, number[rows]))
    rows, role, person = rows[order], role[order], person[order]
    splits = {}
    for split in SPLITS:
        at = np.flatnonzero(role == ROLES.index(split))
        if split == "gallery":
            stored_at = np.empty(len(pool), np.int64)
            stored_at[rows[at]] = at
            splits[split] = Selection.sort(searched[0], stored_at[searched[1]], numbers)
        else:
            splits[split] = Selection.sort(number[rows[at]], at, numbers)
    return Division(rows, role, person, known_cameras(pool)[rows], splits)


def _trained_first(person: np.ndarray, trained: np.ndarray) -> np.ndarray:
    people, index = np.unique(person, return_inverse=True)
    never = np.ones(len(people), bool)
    never[index[trained]] = False
    return never.argsort(kind="stable").argsort()[index]
