"""In which images a task's queries are searched for.

Both functions take, for each image of the pool, its `person` and the `number` client * tasks + task of where its client
sees that person, both int64 [n]. They return pairs: the number of a task and the row of an image in its gallery, both
int64 [m].
"""

import numpy as np

from fedstil_mpi.data.building.groups import places


def everywhere(person: np.ndarray, number: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every task searches those images of all its people, at all clients, that are in `gallery`, bool [n]."""
    task, seen = _seen(person, number)
    visit, row = _images_of(seen, person, np.flatnonzero(gallery))
    return task[visit], row


def elsewhere(
    person: np.ndarray, number: np.ndarray, share: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """As in the reference code: a task searches, for each of its people and each other client, `share` of the images.

    Rounded down, drawn independently for each task and client, and whatever else the images are for.
    """
    task, seen = _seen(person, number)
    visit, row = _images_of(seen, person, np.arange(len(person)))
    # A client sees a person in one task, so another number is another client.
    other = number[row] != task[visit]
    visit, row = visit[other], row[other]
    group = visit * (number.max(initial=0) + 1) + number[row]
    place, size = places(group, generator.permutation(len(row)))
    drawn = place < np.floor(share * size)
    return task[visit[drawn]], row[drawn]


def _seen(person: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Who is seen in which task: the number of the task and the person, once each."""
    people = person.max(initial=0) + 1
    task, seen = np.divmod(np.unique(number * people + person), people)
    return task, seen


def _images_of(wanted: np.ndarray, person: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of `wanted`, people [v], those of `rows` that show them: places in `wanted`, and rows."""
    rows = rows[person[rows].argsort(kind="stable")]
    first = np.searchsorted(person[rows], wanted, side="left")
    count = np.searchsorted(person[rows], wanted, side="right") - first
    visit = np.repeat(np.arange(len(wanted)), count)
    within = np.arange(len(visit)) - np.repeat(np.cumsum(count) - count, count)
    return visit, rows[first[visit] + within]
