"""A stream to choose settings on, made of training images only: no query or gallery of the test is ever used."""

import numpy as np

from fedstil_mpi.data.streams.base import Images, Stream, Task, join
from fedstil_mpi.data.streams.view import View
from fedstil_mpi.util.errors import InputError


class ValidationStream(View):
    """Some training images of `source` are held out and searched for in those of the other clients.

    Of each person's training images in a task the last `held_out` are taken away, but never all: at least one remains
    to be trained on, so a person with a single image has none held out. Queries are the images held out of the task,
    the gallery is what is held out of all tasks of all *other* clients, earlier and later ones: that the same person is
    found at another camera. Others that the query's camera saw are there too, as distractors; images of the
    query's own person by its own camera are left to the Market protocol, for which they are junk.
    """

    # With one image of everybody there is nothing to hold out, and with nobody shared nothing to find.
    on_demand = False

    def __init__(self, source: Stream, held_out: int = 1):
        """Raises InputError where nothing would be held out, or there is no other client to search."""
        if held_out < 1:
            raise InputError(f"a validation view that holds out {held_out} images a person; expected 1 or more")
        if source.clients < 2:
            raise InputError("data.validation searches the other clients, but there is only one; set it to false")
        super().__init__(source)
        self.held_out = held_out
        self._divided: dict[tuple[int, int], tuple[Images, Images]] = {}
        """What stays in training and what is held out of it. The source decodes or draws a task whenever it is asked,
        and every client's gallery needs the tasks of all others."""
        self._divided_labels: dict[tuple[int, int], dict[str, np.ndarray]] = {}

    def task(self, client: int, task: int) -> Task:
        train, query = self._divide(client, task)
        others = [other for other in range(self.clients) if other != client]
        gallery = join([self._divide(other, when)[1] for other in others for when in range(self.tasks)])
        return Task(train, query, gallery)

    def labels(self, client: int, task: int) -> dict[str, np.ndarray]:
        others = [other for other in range(self.clients) if other != client]
        gallery = [self._labels(other, when)["query"] for other in others for when in range(self.tasks)]
        return self._labels(client, task) | {"gallery": np.concatenate(gallery)}

    def cameras(self, client: int, task: int) -> dict[str, np.ndarray] | None:
        others = [(other, when) for other in range(self.clients) if other != client for when in range(self.tasks)]
        parts = [self._cameras(*cell) for cell in ((client, task), *others)]
        if any(part is None for part in parts):
            return None
        (train, query), *held = (part for part in parts if part is not None)
        return {"train": train, "query": query, "gallery": np.concatenate([cameras for _, cameras in held])}

    def _cameras(self, client: int, task: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Of what stays in training and of what is held out."""
        cameras = self.source.cameras(client, task)
        if cameras is None:
            return None
        held = last_of_each(self.source.labels(client, task)["train"], self.held_out)
        return cameras["train"][~held], cameras["train"][held]

    def _labels(self, client: int, task: int) -> dict[str, np.ndarray]:
        """Who stays in training and who is held out of it, as in `_divide`."""
        if (client, task) not in self._divided_labels:
            train = self.source.labels(client, task)["train"]
            held = last_of_each(train, self.held_out)
            self._divided_labels[client, task] = {"train": train[~held], "query": train[held]}
        return self._divided_labels[client, task]

    def _divide(self, client: int, task: int) -> tuple[Images, Images]:
        key = client, task
        if key not in self._divided:
            train = self.source.task(client, task).train
            held = last_of_each(train.pids, self.held_out)
            self._divided[key] = train.select(~held), train.select(held)
        return self._divided[key]


def last_of_each(pids: np.ndarray, count: int) -> np.ndarray:
    """bool [n]: the last `count` images of each person, one fewer than there are where that would be all."""
    held = np.zeros(len(pids), bool)
    for person in np.unique(pids):
        rows = np.flatnonzero(pids == person)
        held[rows[max(1, len(rows) - count) :]] = True
    return held
