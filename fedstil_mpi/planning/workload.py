"""How many images the clients of a run pass through their stems and tails: the schedule played through in numbers."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import cycle, islice

import numpy as np
import torch

from fedstil_mpi.comm.ledger import DOWN, Ledger
from fedstil_mpi.config import Experiment
from fedstil_mpi.data.stream import Stream
from fedstil_mpi.methods.common.base import MethodModule, Traffic
from fedstil_mpi.schedule import Schedule, task_begins, task_of_draw
from fedstil_mpi.training import batch_indices

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

    def train(self) -> None:
        """One round."""
        train, memory = self.experiment.train, self.experiment.memory
        self.draws += 1
        self.task = task_of_draw(self.draws, self.experiment.rounds.per_task, len(self.labels))
        persons, counts = np.unique(self.labels[self.task]["train"], return_counts=True)
        images = dict(zip(persons.tolist(), counts.tolist(), strict=True))
        old = self.relayed + sum(n for p, n in self.exemplars.items() if memory.share is None or p not in images)
        batches = _batch_sizes(sum(images.values()), old, train.batch, memory.share)
        if train.steps:
            epochs = math.ceil(train.steps / len(batches))
            self.passes["train"] += sum(islice(cycle(batches), train.steps))
        else:
            epochs = train.epochs
            self.passes["train"] += epochs * sum(batches)
        if train.augment != "none":
            new_task = task_begins(self.draws, self.experiment.rounds.per_task, len(self.labels))
            views = {"task": int(new_task), "round": 1, "epoch": epochs}[train.refresh]
            self.passes["stem"] += views * sum(images.values())
        if train.augment == "none" or memory.size or self.looks:
            self._represent(self.task, "train")
        if memory.size:
            self.passes["search"] += sum(images.values())
            self._remember(images)

    def search(self) -> None:
        """One evaluation."""
        everything = self.experiment.evaluation.tasks == "all" and self.draws
        for task in range(len(self.labels) if everything else self.task + 1):
            for split in ("query", "gallery"):
                self.passes["search"] += len(self.labels[task][split])
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
    searches = 1 + method.Client.task_aware
    loads = [
        Workload(experiment, [stream.labels(client, task) for task in range(schedule.tasks)], looks)
        for client in range(schedule.clients)
    ]

    def evaluate() -> None:
        for load in loads:
            for _ in range(searches):
                load.search()

    for round, online in schedule.rounds():
        if round > 1 and traffic.down and schedule.evaluates(round - 1):
            evaluate()
        for client in online:
            loads[client].relayed += news.get((round, client), 0)
            loads[client].train()
        if schedule.evaluates(round):
            evaluate()
    for client, load in enumerate(loads):
        load.relayed += news.get((schedule.total + 1, client), 0)
    if traffic.down:
        evaluate()
    return loads


def bounds(experiment: Experiment, method: MethodModule) -> dict[str, str]:
    """How to read a number of passes, by kind: exactly | at most | at least | about so many.

    Early stopping ends rounds sooner, and some methods pass images of their own.
    """
    train = experiment.train
    less = {"train"} | ({"stem"} if train.augment != "none" and train.refresh == "epoch" else set())
    words = {(False, False): "exactly", (True, False): "at most", (False, True): "at least", (True, True): "about"}
    return {kind: words[train.early_stop and kind in less, method.Client.passes_more] for kind in KINDS}
