"""Which client has which cameras."""

import numpy as np

from fedstil_mpi.data.building.pool import Pool
from fedstil_mpi.util.errors import InputError, did_you_mean

WAYS = ("merge", "set")


def assign_clients(pool: Pool, clients: int | None, how: str) -> np.ndarray:
    """The client of every image, int64 [n]; all images of a person at a camera go to the same one.

    "merge" is the way of the reference code: cameras are merged, or cut in two by people, until there are as many as
    clients. A camera is merged into the one that lacks most of its people, so cameras of one set, which share people,
    are kept apart, and with several sets a client becomes a mixture of them. None leaves every camera a client.

    "set" makes every set a client with all its cameras. Sets share no people, so there is no one to recognise at
    another client, but all pairs of cameras stay within a client.

    Raises InputError for an unknown way, no images, fewer clients than one or more of them than there are people, or a
    number of clients other than that of the sets.
    """
    if how not in WAYS:
        raise InputError(f"clients by {how!r}; {did_you_mean(how, WAYS)}expected one of {', '.join(WAYS)}")
    if not len(pool):
        raise InputError("no images for any client; expected at least one: check the sets' folders")
    if how == "set":
        return _by_set(pool, clients)
    cameras, camera = np.unique(pool.cameras, return_inverse=True)
    people, person = np.unique(pool.pids, return_inverse=True)
    if clients is not None and not 1 <= clients <= len(people):
        raise InputError(f"{clients} clients for {len(people)} people: expected 1 to {len(people)}; change the clients")
    seen = np.zeros((len(cameras), len(people)), bool)
    seen[camera, person] = True
    holder = _merge_or_cut(seen, clients or len(cameras))
    return np.unique(holder[camera, person], return_inverse=True)[1]


def _by_set(pool: Pool, clients: int | None) -> np.ndarray:
    sets, client = np.unique(pool.sets, return_inverse=True)
    if clients is not None and clients != len(sets):
        raise InputError(
            f"{clients} clients, one a set, but {len(sets)} sets with images: ask for {len(sets)} clients or leave the "
            "number out"
        )
    return client


def _merge_or_cut(seen: np.ndarray, clients: int) -> np.ndarray:
    """Who holds each person's images at each camera, from `seen`, bool [cameras, people]: int64 of that shape.

    Holders begin as the cameras; their numbers end up with gaps. Where the rule leaves a choice, the first one is taken.
    """
    holder = np.repeat(np.arange(len(seen))[:, None], seen.shape[1], axis=1)
    people = dict(enumerate(seen))  # holder -> bool [people]
    while len(people) > clients:
        fewest = min(people, key=lambda h: people[h].sum())
        moved = people.pop(fewest)
        target = min(people, key=lambda h: (-(moved & ~people[h]).sum(), people[h].sum()))
        people[target] = people[target] | moved
        holder[holder == fewest] = target
    # There are never more clients than people, so whoever has the most has two or more to share.
    while len(people) < clients:
        most = max(people, key=lambda h: people[h].sum())
        first_half = np.flatnonzero(people[most])[: (people[most].sum() + 1) // 2]
        new = len(people)
        people[new] = np.isin(np.arange(seen.shape[1]), first_half)
        people[most] = people[most] & ~people[new]
        holder[(holder == most) & people[new]] = new
    return holder
