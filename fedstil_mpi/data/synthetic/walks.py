"""Which camera sees which people: they walk from camera to camera, to those next door."""

import numpy as np

from fedstil_mpi.util import seeding


def walk(seed: int, *, clients: int, tasks: int, size: int, walkers: float, neighbours: str = "ring") -> np.ndarray:
    """Who is where: sorted person ids, int64 [clients, tasks, size].

    Task by task, every camera fills up with new people to `size`, then a share `walkers` of its people is drawn who
    walk on, each to one of the cameras next door, one or two tasks later, as long as a place is free. A walker may
    walk on again. neighbours: ring or pairs, see `next_door`.
    """
    cells: list[list[list[int]]] = [[[] for _ in range(tasks)] for _ in range(clients)]
    newcomer = 0
    for task in range(tasks):
        for client in range(clients):
            cell = cells[client][task]
            missing = size - len(cell)
            cell.extend(range(newcomer, newcomer + missing))
            newcomer += missing
        for client in range(clients):
            doors = next_door(client, clients, neighbours)
            later = range(task + 1, min(task + 3, tasks))
            generator = seeding.generator(seed, "synthetic", "walk", client, task)
            for person in generator.permutation(cells[client][task])[: round(walkers * size)].tolist():
                free = [cells[door][when] for door in doors for when in later if len(cells[door][when]) < size]
                if free:
                    free[generator.integers(len(free))].append(person)
    return np.sort(np.array(cells, np.int64), axis=2)


def next_door(client: int, clients: int, neighbours: str) -> list[int]:
    """The cameras to which people walk on; in pairs the last of an odd number of cameras has none."""
    if neighbours == "pairs":
        return [client ^ 1] if client ^ 1 < clients else []
    return sorted({(client - 1) % clients, (client + 1) % clients})


def stops(people: np.ndarray) -> list[list[tuple[int, int]]]:
    """Where each person goes, by person id: (client, task) in the order of time; `people` as `walk` returns them."""
    visits: list[list[tuple[int, int]]] = [[] for _ in range(people.max() + 1)]
    for task in range(people.shape[1]):
        for client in range(people.shape[0]):
            for person in people[client, task]:
                visits[person].append((client, task))
    return visits
