"""People numbered without gaps: what is held and sent depends on how many there are, not on how a set numbers them."""

from dataclasses import replace
from itertools import product

import numpy as np

from fedstil_mpi.data.streams.base import Images, Stream, Task
from fedstil_mpi.data.streams.view import View


def dense(source: Stream) -> Stream:
    """`source`, where the people trained on are numbered from 0 without gaps; else a view of it in which they are."""
    cells = list(product(range(source.clients), range(source.tasks)))
    people = np.unique(np.concatenate([source.pids(*cell) for cell in cells]))
    return source if np.array_equal(people, np.arange(len(people))) else DenseStream(source, people)


class DenseStream(View):
    """The people of `source` who are trained on are 0, 1, ... in the order of their ids; all others come after them."""

    def __init__(self, source: Stream, people: np.ndarray):
        """people: int64 [n], sorted ids of all who are trained on."""
        super().__init__(source)
        self.people = people

    def task(self, client: int, task: int) -> Task:
        images = self.source.task(client, task)
        return Task(*(self._renumbered(split) for split in (images.train, images.query, images.gallery)))

    def labels(self, client: int, task: int) -> dict[str, np.ndarray]:
        return {split: self._numbers(pids) for split, pids in self.source.labels(client, task).items()}

    def pids(self, client: int, task: int) -> np.ndarray:
        return self._numbers(self.source.pids(client, task))

    def _renumbered(self, images: Images) -> Images:
        return replace(images, pids=self._numbers(images.pids))

    def _numbers(self, pids: np.ndarray) -> np.ndarray:
        place = np.searchsorted(self.people, pids)
        trained = self.people[np.minimum(place, len(self.people) - 1)] == pids
        return np.where(trained, place, len(self.people) + pids)
