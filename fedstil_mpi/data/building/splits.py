"""What a person's images at a client are for: the arithmetic of the protocols.

Everything is done for all images at once. `place` and `size`, int64 [n], are an image's place in the order in which the
images of its person at its client were drawn, from 0, and how many those are.
"""

import numpy as np

from fedstil_mpi.data.pack.manifest import ROLES

TRAIN, QUERY, GALLERY = (ROLES.index(role) for role in ("train", "query", "gallery"))


def closed(place: np.ndarray, size: np.ndarray, train: float, query: float) -> np.ndarray:
    """The role of every image, uint8 [n]: of three or more at least one each; of two none is a query, one is trained on."""
    trained = np.clip(np.rint(train * size), 1, np.maximum(size - 2, 1))
    asked = _at_least_one(query * size, size - trained)
    return np.select([place < trained, place < trained + asked], [TRAIN, QUERY], GALLERY).astype(np.uint8)


def held_out(place: np.ndarray, size: np.ndarray, query: float) -> np.ndarray:
    """The same for people who are never trained on: of two or more at least one each, a single one is gallery."""
    return np.where(place < _at_least_one(query * size, size), QUERY, GALLERY).astype(np.uint8)


def _at_least_one(wanted: np.ndarray, left: np.ndarray) -> np.ndarray:
    """How many images become queries: `wanted`, rounded, at least one, but one fewer than are left."""
    return np.clip(np.rint(wanted), 1, np.maximum(left - 1, 0))  # clip lets the upper bound win


def reference_code(place: np.ndarray, size: np.ndarray, train: float, query: float) -> tuple[np.ndarray, np.ndarray]:
    """bool [n], twice: which images the reference code trains on, and which it takes as queries.

    Its train images end with a rounded-up number and its queries begin with a rounded-down one: unless train * size is
    whole, one image is both. Images behind the queries are neither.
    """
    begin, end = np.floor(train * size), np.ceil((train + query) * size)
    return place < np.ceil(train * size), (begin <= place) & (place < end)


def some_people(
    person: np.ndarray, camera: np.ndarray, number: np.ndarray, share: float, generator: np.random.Generator
) -> np.ndarray:
    """bool [n], the images of people drawn from those that two cameras see, or one camera that is -1.

    `share` of them, rounded; the others could not be recognised anywhere else. `number`, int64 [n], is the client * tasks
    + task of each image: nobody is drawn without whom a task has fewer than two images left, so fewer than `share` where
    that must be, and then more as long as that gives a task its first.
    """
    cameras = camera.max(initial=0) + 2
    seen, by = np.divmod(np.unique(person * cameras + camera + 1), cameras)
    people, seen_by = np.unique(np.repeat(seen, np.where(by == 0, 2, 1)), return_counts=True)
    known = people[seen_by > 1]
    (who, where), images = np.unique([person, number], axis=1, return_counts=True)
    left, has = np.bincount(number), np.zeros(number.max(initial=-1) + 1, bool)
    drawn: list[int] = []
    order = generator.permutation(known)
    for someone, spare in [*((one, False) for one in order), *((one, True) for one in order)]:
        rows = slice(*np.searchsorted(who, [someone, someone + 1]))
        tasks, own = where[rows], images[rows]
        wanted = not has[tasks].all() if spare else len(drawn) < round(share * len(known))
        if wanted and someone not in drawn and (left[tasks] - own > 1).all():
            left[tasks] -= own
            has[tasks] = True
            drawn.append(someone)
    return np.isin(person, drawn)


def without_lost_queries(role: np.ndarray, person: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """`role`, uint8 [n], with queries that nothing in any gallery matches turned into gallery images.

    A match is a gallery image of the person, at whatever client, from another camera; where the camera is -1, any
    gallery image of the person. All queries are judged by the gallery as it is given.
    """
    gallery = role == GALLERY
    sight = np.unique(person * (camera.max(initial=0) + 2) + camera + 1, return_inverse=True)[1]
    same_camera = _count(sight, gallery)
    matches = _count(person, gallery) - np.where(camera < 0, 0, same_camera)
    return np.where((role == QUERY) & (matches == 0), GALLERY, role).astype(np.uint8)


def _count(group: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """For every element, how many of its group are counted, int64 [n]."""
    return np.bincount(group[counted], minlength=group.max(initial=-1) + 1)[group]
