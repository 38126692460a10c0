"""One edge client: its stream, its model, its memory and its local training, the same for every method."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedstil_mpi.client.augmentation import Augmentation
from fedstil_mpi.client.batches import MakeBatch, batch_indices, make_batches
from fedstil_mpi.client.comparison import BY_COSINE, Comparison
from fedstil_mpi.client.epochs import Epoch, ReferenceRate
from fedstil_mpi.client.local_training import Diverged, LocalTraining, Penalty, set_seed, shortened
from fedstil_mpi.client.rehearsal import Memory, Samples
from fedstil_mpi.client.representations import PLAIN, represent
from fedstil_mpi.client.tail_memory import TailMemory
from fedstil_mpi.client.tasks import task_begins, task_ends, task_of_draw
from fedstil_mpi.client.untold import Untold
from fedstil_mpi.client.views import Views
from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.data.streams.base import Task
from fedstil_mpi.models.network import Network, Tail, fingerprint, is_finite
from fedstil_mpi.util import seeding
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.state_tree import State

KINDS = ("stem", "train", "search")
"""What is counted of images: that they pass the stem, the tail with gradients, the tail without."""


class Learner:
    """A client as every method sees it. What is special about a method stays in `methods/`."""

    derived = ("experiment", "tasks", "stem", "tail_memory", "training", "interrupted", "comparison")
    """Attributes that are no state: see `methods.base.Client`."""
    counts_only = False
    """Whether images are counted instead of used, as a plan does."""
    memory_type = Memory

    def __init__(
        self,
        client: int,
        experiment: Experiment,
        tasks: Sequence[Task],
        network: Network,
        representations: dict[tuple[int, int, str], Tensor] | None = None,
    ):
        """tasks: the client's images; network: the start model, whose stem all clients of a rank share.

        representations: what the stem made of (client, task, split) before, which is used and added to.
        """
        self.client = client
        self.experiment = experiment
        self.tasks = tasks
        self.stem = network.stem
        self.tail = network.tail.twin()
        self.tail_memory = TailMemory(self.tail)
        self.device = next(self.tail.parameters()).device
        memory = experiment.memory
        self.memory = self.memory_type(
            memory.size,
            repeat=memory.herding == "repeat",
            collide=memory.labels == "collide",
            quota=memory.quota,
            seed=seeding.integer(experiment.seed, "memory", client),
        )
        self.known: set[int] = set()
        """People this client has met as training people."""
        self.relayed: list[Samples] = []
        """Prototypes of known people as other clients saw them."""
        self.comparison: Callable[[], Comparison] = lambda: BY_COSINE
        """Makes what says how a search compares."""
        self.draws = 0
        self.task = -1
        self.samples = 0
        """New images seen in the last round's training."""
        self.untold = Untold(experiment.rounds.per_task, len(tasks))
        self.forward_counts: Counter[str] = Counter()
        """Images, by KINDS."""
        self.training: LocalTraining | None = None
        """This round's training, once it has begun."""
        self.interrupted: Callable[[], State | None] | None = None
        """Tells how far training had come when the run was interrupted in it. Raises InputError where this cannot be read."""
        self._rate = ReferenceRate(experiment.train.lr)
        made = {} if representations is None else representations
        self.views = Views(client, experiment, tasks, self.represent, self.forward_counts, made)

    def start_from(self, tail: Mapping[str, Tensor]) -> None:
        """Take over the start model's tail, given by its tensors; what was learned before is lost."""
        self.own_tail()
        self.tail.load_state_dict(tail)

    def own_tail(self) -> None:
        """Before the tail is changed."""
        self.tail_memory.own()

    def fingerprint(self) -> str:
        """The tail's fingerprint; empty for a client that was never drawn and has no model yet."""
        return fingerprint(self.tail) if self.draws else ""

    def begin_round(self) -> None:
        """Being drawn moves the client along its stream; a new task brings new people."""
        self.own_tail()
        self.draws += 1
        self.untold.draws.append(self.draws)
        self.training = None
        self.task = task_of_draw(self.draws, self.experiment.rounds.per_task, len(self.tasks))
        self.known.update(self.tasks[self.task].train.people.tolist())

    @property
    def task_is_new(self) -> bool:
        """Whether this round is the client's first on its task."""
        return task_begins(self.draws, self.experiment.rounds.per_task, len(self.tasks))

    @property
    def task_ends(self) -> bool:
        """Whether this round is the client's last on its task, which never is the case for the last task."""
        return task_ends(self.draws, self.experiment.rounds.per_task, len(self.tasks))

    # -- training ------------------------------------------------------------------------------------------------------

    def train(
        self,
        round: int,
        penalty: Penalty,
        context: Any,
        effort: float = 1.0,
        stop: Callable[[], bool] = lambda: False,
    ) -> Epoch:
        """Train on the current task and the memory; then choose exemplars of the task's people again.

        context: of the penalty; None: there is no penalty. effort: the share of the round's steps or epochs that is
        done. stop: asked after every batch; raises Stopped, and `training` tells how far it came. Returns the loss and
        accuracy of the round (of its last epoch where epochs are counted); the loss is nan where training has diverged.
        Raises InputError there, unless `train.on_divergence` is continue.
        """
        self.training = LocalTraining(self.tail, shortened(self.experiment.train, effort), self._rate)
        if self.interrupted is not None:
            self.training.restore(self.interrupted())
            self.interrupted = None
        report = self._run(self.training, round, penalty, context, stop)
        self.untold.samples += self.samples
        self.remember()
        return report

    def train_beside(self, tail: Tail, round: int, effort: float, stop: Callable[[], bool]) -> None:
        """Before `train`, and as it, but without a penalty: train another model on the same batches; stopped, it begins anew."""
        training = LocalTraining(tail, shortened(self.experiment.train, effort), replace(self._rate))
        self._run(training, round, lambda *given: None, None, stop)

    def _run(
        self, training: LocalTraining, round: int, penalty: Penalty, context: Any, stop: Callable[[], bool]
    ) -> Epoch:
        set_seed(self._seed("train", round), self.device)
        self.samples = 0
        try:
            report = training.run(partial(self._epoch, round), self.allowed(), penalty, context, stop)
        except Diverged as error:
            raise self._diverged(f"round {round}, {error}") from None
        if not is_finite(training.parameters.values()):
            report = replace(report, loss=math.nan)
            if self.experiment.train.on_divergence == "stop":
                raise self._diverged(f"round {round}: the weights are not finite after its last step")
        return report

    def _diverged(self, where: str) -> InputError:
        return InputError(
            f"client {self.client}, {where}; training has diverged: lower train.lr or the weights of the added losses, or set "
            "train.on_divergence=continue to play on"
        )

    def _epoch(self, round: int, epoch: int) -> Iterator[MakeBatch]:
        """The batches of one pass over the task's training images, mixed with remembered ones."""
        self.views.count(self.task, round, epoch)
        new, old = len(self.views.pids_trained_on(self.task)), self.rehearsed()
        size, share = self.experiment.train.batch, self.experiment.memory.share
        generator = torch.Generator().manual_seed(self._seed("batches", round, epoch))
        indices = batch_indices(new, 0 if old is None else len(old), size, share, generator)
        for index, make in make_batches(indices, new, partial(self.views.trained_on, self.task, round, epoch), old):
            self.samples += int((index < new).sum())
            self.forward_counts["train"] += len(index)
            yield make

    def rehearsed(self) -> Samples | None:
        """What is rehearsed in this round: exemplars of people who are not in the current task, then relayed prototypes."""
        if self.experiment.memory.size == 0 and not self.relayed:
            return None
        exemplars = self.memory.recall(without=self.not_rehearsed())
        parts = ([exemplars] if exemplars is not None else []) + self.relayed
        return Samples.concatenate(parts) if parts else None

    def not_rehearsed(self) -> set[int]:
        """People whose exemplars rest in this round: those of the current task, unless all samples make one set."""
        together = self.experiment.memory.share is None
        return set() if together else set(self.tasks[self.task].train.people.tolist())

    @torch.no_grad()
    def remember(self) -> None:
        """Choose exemplars of the current task's people."""
        if self.experiment.memory.size == 0:
            return
        samples = self.views.trained(self.task, self.clean_samples())
        self.tail.eval()
        self.forward_counts["search"] += len(samples)
        self.memory.store(samples, self.tail.features(samples.representations))

    def _seed(self, purpose: str, *when: int) -> int:
        return seeding.integer(self.experiment.seed, purpose, self.client, *when)

    # -- what the client knows of its task -----------------------------------------------------------------------------

    def clean_samples(self, task: int | None = None) -> Samples:
        """A task's training images, not augmented; None: the current one's."""
        task = self.task if task is None else task
        return self.views.labelled(task, self.views.clean(task, "train"))

    def token(self) -> Tensor:
        """Task token: the mean representation of the current task's training images, [D] on the CPU."""
        return self.views.clean(self.task, "train").flatten(1).mean(0).cpu()

    def identity_prototypes(self, task: int) -> Tensor:
        """The mean representation of each person of a task in the order of pids, [n, D] on the CPU."""
        return self.clean_samples(task).means().cpu()

    def represent(self, pixels: np.ndarray, how: Augmentation = PLAIN, seed: int = 0) -> Tensor:
        """The stem's output for images, as `representations.represent`."""
        return represent(self.stem, pixels, self.device, how, seed)

    def allowed(self) -> Tensor | None:
        """The classes in the softmax, bool [C] on the device; None for all."""
        if self.experiment.train.softmax == "all":
            return None
        mask = torch.zeros(self.tail.classifier.out_features, dtype=torch.bool)
        mask[sorted(self.known)] = True
        return mask.to(self.device)

    # -- interruptions -------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """What the client goes on from after a round. One that was never drawn has no model yet."""
        return {
            "tail": dict(self.tail.state_dict()) if self.draws else None,
            "draws": self.draws,
            "task": self.task,
            "known": sorted(self.known),
            "samples": self.samples,
            "untold": self.untold.state(),
            "memory": self.memory.state(),
            "relayed": [samples.state() for samples in self.relayed],
            "epochs": self._rate.epochs,
            **self.counted_state(),
        }

    def counted_state(self) -> State:
        """Of `state` what changes where the client is searched: the images that were passed for it."""
        return {"passes": dict(self.forward_counts), "views": self.views.state()}

    def restore(self, state: State) -> None:
        """Take up such a state in a learner just created, whose tail has the parts that it had."""
        if state["tail"] is not None:
            self.own_tail()
            self.tail.load_state_dict(state["tail"])
        self.draws, self.task, self.samples = state["draws"], state["task"], state["samples"]
        self.known = set(state["known"])
        self.untold.restore(state["untold"])
        self.memory.restore(state["memory"], self.device)
        self.relayed = [Samples.of(samples, self.device) for samples in state["relayed"]]
        self._rate.epochs = state["epochs"]
        self.forward_counts.update(state["passes"])
        self.views.restore(state["views"])

    # -- evaluation ----------------------------------------------------------------------------------------------------

    @property
    def searched(self) -> range:
        """The tasks that are evaluated: none of a client that was never drawn, which has no model yet."""
        everything = self.experiment.evaluation.tasks == "all" and self.draws
        return range(len(self.tasks) if everything else self.task + 1)

    @property
    def feature_length(self) -> int:
        """Numbers that a search compares of an image."""
        return self.tail.classifier.in_features

    @torch.no_grad()
    def extract_features(self, task: int, split: str, tail: Tail, comparison: Comparison = BY_COSINE) -> Tensor:
        """Of a split's images by this model what a search compares, [n, F] on the device. Raises InputError where it has diverged."""
        images, clean = getattr(self.tasks[task], split), self.views.clean(task, split)
        self.forward_counts["search"] += len(images)
        features = comparison.features(tail.eval(), clean, images.cameras)
        if self.experiment.train.on_divergence == "stop" and not is_finite([features]):
            raise self._diverged(f"task {task}: the features of its {split} images are not finite")
        return features
