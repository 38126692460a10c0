"""Which client sees which people in which task."""

import math

import numpy as np

from fedstil_mpi.data.building.groups import places
from fedstil_mpi.data.building.pool import Pool
from fedstil_mpi.util import seeding
from fedstil_mpi.util.errors import InputError, did_you_mean


def assign_tasks(
    pool: Pool, client: np.ndarray, tasks: int, *, order: str, ratio: float, distance: float, seed: int
) -> np.ndarray:
    """The task of every image, int64 [n]: everyone that a client sees has one task there.

    A client's people are put in an order, which is mixed and cut into tasks whose sizes differ by at most one.

    Order "random" is drawn once for all clients, so that a person is seen at similar times everywhere. Order "time" is
    that of the first image: how far down the list of its camera's newcomers, as a fraction, for the camera where
    that is soonest. Times of different cameras need not be comparable.

    Mixing is the reference code's: with B people a task (rounded down), ratio * B times two people B to distance * B
    places apart change places, and ratio * T times two whole tasks 1 to `distance` apart. Each pair is drawn uniformly
    from those that are so far apart; where there are none, nothing changes.

    Raises InputError for a number out of range, more tasks than people of a client, or order "time" without times.
    """
    if order not in ORDERS:
        raise InputError(f"people in order {order!r}; {did_you_mean(order, ORDERS)}expected one of {', '.join(ORDERS)}")
    if not 0 <= ratio <= 1 or not distance >= 0:
        raise InputError(
            f"mixing with ratio {ratio} and distance {distance}: expected a ratio from 0 to 1 and a distance of 0 or more"
        )
    if tasks < 1:
        raise InputError(f"{tasks} tasks; expected at least 1")
    when = ORDERS[order](pool, seed)
    task = np.empty(len(pool), np.int64)
    for number in np.unique(client):
        rows = np.flatnonzero(client == number)
        people, person = np.unique(pool.pids[rows], return_inverse=True)
        if len(people) < tasks:
            raise InputError(
                f"client {number} sees {len(people)} people: expected one for each of {tasks} tasks at least; ask for "
                "fewer tasks or fewer clients"
            )
        first = np.full(len(people), np.inf)
        np.minimum.at(first, person, when[rows])
        task_of = np.empty(len(people), np.int64)
        generator = seeding.generator(seed, "build", "mixing", int(number))
        task_of[first.argsort(kind="stable")] = _cut(len(people), tasks, ratio, distance, generator)
        task[rows] = task_of[person]
    return task


def _at_random(pool: Pool, seed: int) -> np.ndarray:
    people, person = np.unique(pool.pids, return_inverse=True)
    return seeding.generator(seed, "build", "people").permutation(len(people))[person]


def _by_time(pool: Pool, seed: int) -> np.ndarray:
    """float64 [n] between 0 and 1: how many of the camera's people were first seen there before the image's person."""
    if (pool.times < 0).any():
        label = pool.label(int((pool.times < 0).argmax()))
        raise InputError(f"set {label} has no times of its images: put people in random order")
    people = pool.pids.max(initial=0) + 1
    pairs, pair = np.unique(pool.cameras * people + pool.pids, return_inverse=True)
    first = np.full(len(pairs), np.iinfo(np.int64).max)
    np.minimum.at(first, pair, pool.times)
    place, newcomers = places(pairs // people, first)
    return ((place + 0.5) / newcomers)[pair]


ORDERS = {"random": _at_random, "time": _by_time}
"""Name of an order -> when each image's person comes, [n]."""


def _cut(people: int, tasks: int, ratio: float, distance: float, generator: np.random.Generator) -> np.ndarray:
    """The task of each place in the order of the people, int64 [people], after mixing."""
    share = people // tasks
    order = np.arange(people)
    _swap(order, math.floor(ratio * share), share, distance * share, generator)
    turns = np.arange(tasks)
    _swap(turns, math.floor(ratio * tasks), 1, distance, generator)
    blocks = np.array_split(order, tasks)
    task = np.empty(people, np.int64)
    for number, block in enumerate(turns):
        task[blocks[block]] = number
    return task


def _swap(items: np.ndarray, count: int, nearest: int, farthest: float, generator: np.random.Generator) -> None:
    """Lets two items that are `nearest` to `farthest` places apart change places, in place, `count` times."""
    gaps = np.arange(nearest, math.floor(min(farthest, len(items) - 1)) + 1)
    if not len(gaps):
        return
    pairs_up_to = np.cumsum(len(items) - gaps)  # so many pairs lie `nearest` to this gap apart
    for pair in generator.integers(pairs_up_to[-1], size=count):
        gap = np.searchsorted(pairs_up_to, pair, side="right")
        x = pairs_up_to[gap] - 1 - pair
        y = x + gaps[gap]
        items[[x, y]] = items[[y, x]]
