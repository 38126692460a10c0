"""Which images are trained on, which are queries, and where they are searched for."""

from dataclasses import dataclass

import numpy as np

from fedstil_mpi.data.building import galleries, splits
from fedstil_mpi.data.building.division import Division, arrange, known_cameras
from fedstil_mpi.data.building.groups import places
from fedstil_mpi.data.building.pool import Pool
from fedstil_mpi.util import seeding
from fedstil_mpi.util.errors import InputError, did_you_mean

PROTOCOLS = ("closed", "open", "reference_code")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a stream is tested. In "closed" and "open" no image that anybody trains on is a query or in a gallery."""

    name: str = "closed"
    """closed: everyone is trained on and tested, with different images. open: test people are never trained on.
    reference_code: the split of FedSTIL's code, for comparison only. It leaks: an image may be trained on and a query, and
    galleries are drawn from other clients' images whether they train on them or not; some images are not used at all.
    """
    train: float = 0.6
    """The share of a person's images at a client that are trained on; in "open" all or none are."""
    query: float = 0.2
    """The share that are queries; in "open" query / (1 - train) of a test person's."""
    train_people: float = 0.5
    """In "open", the share that is trained on of those people that two cameras see, or a set's only camera. All others
    are trained on, and in every task somebody is."""
    gallery: float = 0.7
    """In "reference_code", the share of a person's images at each other client that a task searches."""

    def __post_init__(self) -> None:
        if self.name not in PROTOCOLS:
            near = did_you_mean(self.name, PROTOCOLS)
            raise InputError(f"protocol {self.name!r}; {near}expected one of {', '.join(PROTOCOLS)}")
        if not (0 < self.train < 1 and 0 < self.query < 1 and self.train + self.query <= 1):
            raise InputError(
                f"a split of {self.train} train and {self.query} query: expected shares above 0 whose sum is at most 1"
            )
        if not 0 < self.train_people < 1:
            raise InputError(f"a share of train people of {self.train_people}; expected a number between 0 and 1")
        if not 0 < self.gallery <= 1:
            raise InputError(f"a share of gallery images of {self.gallery}; expected a number above 0, at most 1")


def divide(
    pool: Pool, client: np.ndarray, task: np.ndarray, clients: int, tasks: int, protocol: Protocol, seed: int
) -> Division:
    """What each image is for by this protocol, given its client and its task there, both int64 [n].

    In "closed" and "open" a task searches all gallery images of the people that its client sees in it, at all clients; a
    query that would find its person nowhere is a gallery image instead. Which of a person's images are what is drawn
    from the seed.

    Raises InputError where a task has fewer than two images to train on, no query is left, or there is nothing to search.
    """
    person, camera, number = pool.pids, known_cameras(pool), client * tasks + task
    drawn = seeding.generator(seed, "build", "images").permutation(len(pool))
    place, size = places(number * (person.max(initial=0) + 1) + person, drawn)
    rows = np.arange(len(pool))
    if protocol.name == "reference_code":
        train, query = splits.reference_code(place, size, protocol.train, protocol.query)
        generator = seeding.generator(seed, "build", "galleries")
        searched = galleries.elsewhere(person, number, protocol.gallery, generator)
        by_role = {splits.TRAIN: rows[train], splits.QUERY: rows[query], splits.GALLERY: np.unique(searched[1])}
        rows = np.concatenate(list(by_role.values()))
        role = np.repeat(list(by_role), [len(of_role) for of_role in by_role.values()]).astype(np.uint8)
    else:
        role = splits.closed(place, size, protocol.train, protocol.query)
        if protocol.name == "open":
            held_out = splits.held_out(place, size, protocol.query / (1 - protocol.train))
            generator = seeding.generator(seed, "build", "test people")
            tested = splits.some_people(person, camera, number, 1 - protocol.train_people, generator)
            role = np.where(tested, held_out, splits.TRAIN).astype(np.uint8)
        role = splits.without_lost_queries(role, person, camera)
        searched = galleries.everywhere(person, number, role == splits.GALLERY)
    _check(number[rows], role, clients, tasks)
    return arrange(pool, number, clients * tasks, rows, role, searched)


def _check(number: np.ndarray, role: np.ndarray, clients: int, tasks: int) -> None:
    trained = np.bincount(number[role == splits.TRAIN], minlength=clients * tasks)
    if trained.min() < 2:  # a batch norm makes nothing of one image
        client, task = divmod(int(trained.argmin()), tasks)
        raise InputError(
            f"client {client}, task {task} has {trained.min()} images to train on: expected two or more in each of "
            f"{clients} x {tasks} tasks; ask for fewer clients or tasks"
        )
    if not (role == splits.QUERY).any() or not (role == splits.GALLERY).any():
        raise InputError(
            "no query finds its person in a gallery: expected people with several images at a client, seen by several "
            "cameras; use larger sets, other shares or another protocol"
        )
