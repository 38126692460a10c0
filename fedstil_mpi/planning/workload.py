"""How many images the clients of a run pass through their stems and tails: the schedule played through in numbers."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import cycle, islice

import numpy as np
import torch

from fedstil_mpi.client.augmentation import Augmentation
from fedstil_mpi.client.local_training import batch_indices, shortened
from fedstil_mpi.client.tasks import task_begins, task_of_draw
from fedstil_mpi.comm.ledger import DOWN, Ledger
from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.data.streams.base import Stream
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.methods.base import MethodModule, Traffic

KINDS = ("stem", "train", "search")
"""The keys of `Learner.passes`: images through the stem, the tail with gradients, the tail without."""


@dataclass
class Workload:
    """One client's. It does what `Learner` does, with numbers of images in place of images."""

    experiment: Experiment
    labels: Sequence[Mapping[str, np.ndarray]]
    """By task and split, the person in each image."""
    looks: bool
    """Whether something besides the memory looks at each task's training images as they are, not augmented."""
    passes: Counter[str] = field(default_factory=Counter)
    draws: int = 0
    task: int = -1
    relayed: int = 0
    """Prototypes of other clients."""
    exemplars: dict[int, int] = field(default_factory=dict)
    """Person -> how many."""
    represented: set[tuple[int, str]] = field(default_factory=set)
    """(task, split) whose images are kept as the stem's output."""

    def train(self, effort: float = 1.0) -> None:
        """One round."""
        train, memory = shortened(self.experiment.train, effort), self.experiment.memory
        self.draws += 1
        self.task = task_of_draw(self.draws, self.experiment.rounds.per_task, len(self.labels))
        pids, counts = np.unique(self.labels[self.task]["train"], return_counts=True)
        images = dict(zip(pids.tolist(), counts.tolist(), strict=True))
        old = self.relayed + sum(n for p, n in self.exemplars.items() if memory.share is None or p not in images)
        batches = _batch_sizes(sum(images.values()), old, train.batch, memory.share)
        if train.steps:
            epochs = math.ceil(train.steps / len(batches))
            self.passes["train"] += sum(islice(cycle(batches), train.steps))
        else:
            epochs = train.epochs
            self.passes["train"] += epochs * sum(batches)
        augments = Augmentation.of(train).active
        if augments:
            new_task = task_begins(self.draws, self.experiment.rounds.per_task, len(self.labels))
            views = {"task": int(new_task), "round": 1, "epoch": epochs}[train.refresh]
            self.passes["stem"] += views * sum(images.values())
        if not augments or memory.size or self.looks:
            self._represent(self.task, "train")
        if memory.size:
            self.passes["search"] += sum(images.values())
            self._remember(images)

    @property
    def searched(self) -> range:
        """The tasks that are evaluated."""
        everything = self.experiment.evaluation.tasks == "all" and self.draws
        return range(len(self.labels) if everything else self.task + 1)

    @property
    def held(self) -> int:
        """Images in the galleries of these tasks."""
        return sum(len(self.labels[task]["gallery"]) for task in self.searched)

    def search(self, by_task: bool = False) -> None:
        """One evaluation. by_task: each task is searched with a model of its own."""
        again = by_task and self.experiment.evaluation.gallery == "client"  # every model describes every gallery
        for task in self.searched:
            for split, models in (("query", 1), ("gallery", len(self.searched) if again else 1)):
                self.passes["search"] += models * len(self.labels[task][split])
                self._represent(task, split)

    def _represent(self, task: int, split: str) -> None:
        if (task, split) not in self.represented:
            self.represented.add((task, split))
            self.passes["stem"] += len(self.labels[task][split])

    def _remember(self, images: Mapping[int, int]) -> None:
        memory, people = self.experiment.memory, self.exemplars.keys() | images.keys()
        repeat = memory.herding == "repeat"
        sharers = max(people) + 1 if memory.quota == "width" else len(people)
        quota = math.ceil(memory.size / sharers) if repeat else memory.size // sharers
        self.exemplars = {person: min(count, quota) for person, count in self.exemplars.items()}
        self.exemplars |= {person: quota if repeat else min(count, quota) for person, count in images.items()}


@cache
def _batch_sizes(new: int, old: int, batch: int, share: float | None) -> tuple[int, ...]:
    return tuple(len(index) for index in batch_indices(new, old, batch, share, torch.Generator()))


def play(
    experiment: Experiment, method: MethodModule, schedule: Schedule, stream: Stream, traffic: Traffic, ledger: Ledger
) -> list[Workload]:
    """Every client's workload at the end of the run; the order of things is that of `rounds.run_rounds`.

    ledger: the predicted one, which tells how many prototypes are relayed to whom and when.
    """
    kinds = {part.kind for part in traffic.up}
    looks = not kinds.isdisjoint(("token", "prototypes"))
    relayed = {part.kind: part.itemsize for part in traffic.down}.get("prototypes", 0)
    news = {
        (e.round, e.client): e.raw // relayed for e in ledger.entries if (e.direction, e.kind) == (DOWN, "prototypes")
    }
    views = (True, False) if method.Client.task_aware else (False,)
    loads = [
        Workload(experiment, [stream.labels(client, task) for task in range(schedule.tasks)], looks)
        for client in range(schedule.clients)
    ]

    def evaluate(now: int) -> None:
        for client in schedule.attendance.left(now):
            for by_task in views:
                loads[client].search(by_task)

    for round, online in schedule.rounds():
        if round > 1 and traffic.down and schedule.evaluates(round - 1):
            evaluate(round)
        for client in online:
            loads[client].relayed += news.get((round, client), 0)
            loads[client].train(schedule.attendance.effort(client, round))
        if schedule.evaluates(round):
            evaluate(round)
    for client, load in enumerate(loads):
        load.relayed += news.get((schedule.total + 1, client), 0)
    if traffic.down:
        evaluate(schedule.total + 1)
    return loads


def bounds(experiment: Experiment, method: MethodModule) -> dict[str, str]:
    """How to read a number of passes, by kind: exactly | at most | at least | about so many.

    Early stopping ends rounds sooner, and some methods pass images of their own.
    """
    train = experiment.train
    less = {"train"} | ({"stem"} if Augmentation.of(train).active and train.refresh == "epoch" else set())
    words = {(False, False): "exactly", (True, False): "at most", (False, True): "at least", (True, True): "about"}
    return {kind: words[train.early_stop and kind in less, method.Client.passes_more] for kind in KINDS}
