"""A client's images through the frozen stem: once, or again with fresh augmentation as often as `train.refresh` asks."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from fedstil_mpi.client.augmentation import Augmentation
from fedstil_mpi.client.representations import PLAIN
from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.data.streams.base import Task
from fedstil_mpi.util import seeding
from fedstil_mpi.util.state_tree import State


class Views:
    """Representations of one client's images, [n, ...] on its device, and the count of the images that were passed for them.

    What is counted is what a run without interruptions would pass, whether this process makes it or not.
    """

    derived = ("experiment", "tasks", "represent", "counts", "made", "_before", "_view")

    def __init__(
        self,
        client: int,
        experiment: Experiment,
        tasks: Sequence[Task],
        represent: Callable[[np.ndarray, Augmentation, int], Tensor],
        counts: Counter[str],
        before: dict[tuple[int, int, str], Tensor],
    ):
        """represent: pixels, augmentation and seed -> representations; counts: "stem" is added to.

        before: what the stem made of (client, task, split) without augmentation, which is used and added to.
        """
        self.client = client
        self.experiment = experiment
        self.tasks = tasks
        self.represent = represent
        self.counts = counts
        self.made: dict[tuple[int, str], Tensor | None] = {}
        """(task, split) -> without augmentation; None: counted, but not made in this process."""
        self._before = before
        self._viewed: tuple[int, ...] = ()
        """(task, round, epoch) of the last augmented view that is counted, as far as `train.refresh` asks."""
        self._view: Tensor | None = None

    def clean(self, task: int, split: str) -> Tensor:
        """Of a split without augmentation; the stem is frozen, so they are made once a run."""
        made = self.made.get((task, split))
        if made is None:
            self._count_clean(task, split)
            made = self._before.get((self.client, task, split))
            if made is None:
                made = self.represent(getattr(self.tasks[task], split).pixels, PLAIN, 0)
            self.made[task, split] = self._before[self.client, task, split] = made
        return made

    def trained_on(self, task: int, round: int, epoch: int) -> Tensor:
        """Of the task's training images, with this refresh's augmentation."""
        self.count(task, round, epoch)
        how = Augmentation.of(self.experiment.train)
        if not how.active:
            return self.clean(task, "train")
        if self._view is None:
            seed = seeding.integer(self.experiment.seed, "augment", self.client, *self._viewed)
            self._view = self.represent(self.tasks[task].train.pixels, how, seed)
        return self._view

    def count(self, task: int, round: int, epoch: int) -> None:
        """Count what `trained_on` makes, without making it: of an epoch that was trained on before an interruption."""
        train = self.experiment.train
        if not Augmentation.of(train).active:
            self._count_clean(task, "train")
            return
        when = {"task": (task,), "round": (task, round), "epoch": (task, round, epoch)}[train.refresh]
        if self._viewed != when:
            self.counts["stem"] += len(self.tasks[task].train)
            self._viewed, self._view = when, None

    def _count_clean(self, task: int, split: str) -> None:
        if (task, split) not in self.made:
            self.counts["stem"] += len(getattr(self.tasks[task], split))
            self.made[task, split] = None

    def state(self) -> State:
        """What was counted."""
        return {"represented": [[task, split] for task, split in self.made], "viewed": list(self._viewed)}

    def restore(self, state: State) -> None:
        self.made = dict.fromkeys((task, split) for task, split in state["represented"])
        self._viewed, self._view = tuple(state["viewed"]), None
