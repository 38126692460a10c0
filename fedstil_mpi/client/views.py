"""A client's images through the frozen stem: once, or again with fresh augmentation as often as `train.refresh` asks."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedstil_mpi.client.augmentation import Augmentation
from fedstil_mpi.client.rehearsal import Samples
from fedstil_mpi.client.representations import PLAIN
from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.data.streams.base import Task
from fedstil_mpi.data.streams.duplicates import FirstShown
from fedstil_mpi.data.streams.validation import last_of_each
from fedstil_mpi.util import seeding
from fedstil_mpi.util.state_tree import State


class Views:
    """Representations of one client's images, [n, ...] on its device, and the count of the images that were passed for them.

    What is counted is what a run without interruptions would pass, whether this process makes it or not.
    """

    derived = ("experiment", "tasks", "represent", "counts", "made", "shown", "_before", "_view")

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
        self.held_out = 0
        """So many of each person's images in a task, but never all, are kept from training, for a method to try models on."""
        self.shown = FirstShown(tasks)
        """For each task, bool [gallery]: the images that no earlier task's gallery has."""
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

    def trained_on(self, task: int, round: int, epoch: int) -> Samples:
        """The task's training images that are not held out, with this refresh's augmentation."""
        self.count(task, round, epoch)
        how = Augmentation.of(self.experiment.train)
        if how.active and self._view is None:
            seed = seeding.integer(self.experiment.seed, "augment", self.client, *self._viewed)
            self._view = self.represent(self.tasks[task].train.pixels, how, seed)
        view = self._view if how.active else self.clean(task, "train")
        assert view is not None
        return self.trained(task, self.labelled(task, view))

    def labelled(self, task: int, representations: Tensor) -> Samples:
        """All training images of a task."""
        images = self.tasks[task].train
        labels = images.pids, np.searchsorted(images.people, images.pids)
        return Samples(representations, *(torch.from_numpy(label).to(representations.device) for label in labels))

    def held(self, task: int) -> np.ndarray:
        """bool [n]: which of the task's training images are held out; none where that would leave less than two."""
        held = last_of_each(self.tasks[task].train.pids, self.held_out)
        return held if np.count_nonzero(~held) > 1 else np.zeros_like(held)

    def pids_trained_on(self, task: int) -> np.ndarray:
        """Of the images that are not held out, int64 [n]."""
        pids = self.tasks[task].train.pids
        return pids[~self.held(task)] if self.held_out else pids

    def trained(self, task: int, samples: Samples) -> Samples:
        """Those of all training images of a task that are not held out."""
        return samples[np.flatnonzero(~self.held(task)).tolist()] if self.held_out else samples

    def tried(self, task: int) -> Samples:
        """The task's images that are held out, not augmented; where none are, those that are trained with."""
        samples, rows = self.labelled(task, self.clean(task, "train")), np.flatnonzero(self.held(task)).tolist()
        return samples[rows] if rows else samples

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

    def kept(self) -> list[list[Any]]:
        """What was made without augmentation, as a part of a state: [task, split, representations]."""
        return [[task, split, made] for (task, split), made in self.made.items() if made is not None]

    def take(self, kept: list[list[Any]], device: torch.device) -> None:
        """What `kept` gave, so that it need not be made again."""
        for task, split, made in kept:
            self.made[task, split] = self._before[self.client, task, split] = made.to(device)

    def state(self) -> State:
        """What was counted."""
        return {"represented": [[task, split] for task, split in self.made], "viewed": list(self._viewed)}

    def restore(self, state: State) -> None:
        self.made = dict.fromkeys((task, split) for task, split in state["represented"])
        self._viewed, self._view = tuple(state["viewed"]), None
