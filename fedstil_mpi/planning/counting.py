"""The counting half of a plan: a trainer and learners that count images and forward passes instead of making them.

They read the labels of a stream, never an image. The schedule, what is remembered, relayed and searched when, and
all messages are those of the real loop and the real methods.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedstil_mpi.client.augmentation import Augmentation
from fedstil_mpi.client.batches import batch_indices
from fedstil_mpi.client.epochs import Epoch
from fedstil_mpi.client.learner import Learner
from fedstil_mpi.client.local_training import shortened
from fedstil_mpi.client.rehearsal import Memory, Samples
from fedstil_mpi.client.representations import PLAIN
from fedstil_mpi.data.streams.base import SPLITS, Images, Stream, Task
from fedstil_mpi.evaluation.scopes import Scopes
from fedstil_mpi.evaluation.search import Gallery, Search, TailFor
from fedstil_mpi.methods.base import Client
from fedstil_mpi.models.network import Tail

NUMBER = 1 / 7
"""What is "measured": a number with as many digits as a number can have, so that files come out as large."""


class CountingTrainer:
    """Counts what `federation.trainer.OneByOne` would do."""

    def train(
        self, round: int, clients: Sequence[Client], efforts: Sequence[float], stop: Callable[[], bool]
    ) -> list[Epoch]:
        for client, effort in zip(clients, efforts, strict=True):
            assert isinstance(client.learner, CountingLearner)
            if client.beside is not None:
                client.learner.train_beside(client.beside, round, effort, stop)
            client.learner.count_training(round, effort)
        return [Epoch(NUMBER, NUMBER, 0)] * len(clients)

    def search(self, learner: Learner, tail_for: TailFor | None) -> Search:
        return CountingSearch(learner, tail_for)


NOTHING = Gallery(torch.empty(0, 1), np.empty((0, 2), np.int64))


class CountingSearch(Search):
    """Has features extracted when `Search` would, which the learner counts, and does nothing with them."""

    def _find(self, scopes: Scopes, task: int, query: Gallery, galleries: Sequence[Gallery]) -> np.ndarray:
        people = self.learner.tasks[task].query.people
        return np.where(scopes.asked(people), NUMBER, np.nan)[:, None]

    def _join(self, galleries: Iterable[Gallery]) -> Gallery:
        for _ in galleries:
            pass
        return NOTHING


class CountingMemory(Memory):
    """Knows how many exemplars there are of each person."""

    def __init__(self, *given: Any, **named: Any):
        super().__init__(*given, **named)
        self.counts: dict[int, int] = {}

    def count(self, images: Mapping[int, int]) -> None:
        """As `store`; images: person -> number of images."""
        shares = self.share_out(self.counts, images)
        if self.repeat:  # a new person fills its share, one met before has no more than it had
            shares |= {person: min(n, shares[person]) for person, n in self.counts.items() if person not in images}
        self.counts = shares

    def number(self, without: set[int]) -> int:
        """Exemplars that `recall` would give."""
        return sum(self.counts.values()) - sum(self.counts.get(pid, 0) for pid in without)


class CountingLearner(Learner):
    """A learner whose images have no pixels, with a hollow network."""

    counts_only = True
    memory_type = CountingMemory
    memory: CountingMemory

    def remembered(self) -> int:
        """Samples that are rehearsed in this round."""
        return self.memory.number(self.not_rehearsed()) + sum(map(len, self.relayed))

    def rehearsed(self) -> Samples | None:
        n = self.remembered()
        zeros = torch.zeros(n, dtype=torch.int64)
        return Samples(torch.zeros(n, 1), zeros, zeros) if n else None

    def count_training(self, round: int, effort: float) -> None:
        """As `train`."""
        self._count_passes(round, effort)
        self.remember()

    def train_beside(self, tail: Tail, round: int, effort: float, stop: Callable[[], bool]) -> None:
        self._count_passes(round, effort)

    def _count_passes(self, round: int, effort: float) -> None:
        """Of local training.

        How many batches there are is known without making them; to make them, of a thousand clients, would take minutes.
        """
        train = shortened(self.experiment.train, effort)
        new = len(self.views.pids_trained_on(self.task))
        batches = _batch_sizes(new, self.remembered(), train.batch, self.experiment.memory.share)
        epochs = math.ceil(train.steps / len(batches)) if train.steps else train.epochs
        self.forward_counts["train"] += sum(islice(cycle(batches), train.steps or epochs * len(batches)))
        for epoch in range(epochs):
            self.views.count(self.task, round, epoch)

    def remember(self) -> None:
        if self.experiment.memory.size:
            pids = self.views.pids_trained_on(self.task)
            self.views.clean(self.task, "train")
            self.forward_counts["search"] += len(pids)
            self.memory.count(Counter(pids.tolist()))

    def represent(self, pixels: np.ndarray, how: Augmentation = PLAIN, seed: int = 0) -> Tensor:
        return _zeros(len(pixels), 1)

    feature_length = 1

    def extract_features(self, task: int, split: str, tail: Tail, comparison: Any = None) -> Tensor:
        self.views.clean(task, split)
        n = len(getattr(self.tasks[task], split))
        self.forward_counts["search"] += n
        return _zeros(n, self.feature_length)

    def identity_prototypes(self, task: int) -> Tensor:
        self.views.clean(task, "train")
        return _zeros(len(self.tasks[task].train.people), 1)

    @property
    def images_searched_in(self) -> int:
        """Images in the galleries of the tasks that are evaluated."""
        return sum(len(self.tasks[task].gallery) for task in self.searched)

    @property
    def stored(self) -> int:
        """Representations in the memory, with those of other clients."""
        return self.memory.number(set()) + sum(map(len, self.relayed))

    @property
    def represented(self) -> int:
        """Images of which the stem's output is kept."""
        return sum(len(getattr(self.tasks[task], split)) for task, split in self.views.made)


@cache
def _zeros(n: int, length: int) -> Tensor:
    """[n, length], at the cost of one number."""
    return torch.zeros(()).expand(n, length)


@cache
def _batch_sizes(new: int, old: int, batch: int, share: float | None) -> tuple[int, ...]:
    return tuple(len(index) for index in batch_indices(new, old, batch, share, torch.Generator()))


@cache
def _black(n: int, height: int, width: int) -> np.ndarray:
    return np.broadcast_to(np.uint8(0), (n, height, width, 3))


def tasks_without_pixels(stream: Stream, client: int, height: int, width: int) -> list[Task]:
    """A client's tasks with their labels, and black images that take no memory."""

    def images(pids: np.ndarray) -> Images:
        return Images(_black(len(pids), height, width), pids, np.zeros(len(pids), np.int64))

    labels = [stream.labels(client, task) for task in range(stream.tasks)]
    return [Task(**{split: images(of_task[split]) for split in SPLITS}) for of_task in labels]
