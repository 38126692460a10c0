"""One edge client: its stream, its model, its memory and its local training, the same for every method."""

import copy
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fedstil_mpi import seeding
from fedstil_mpi.config import Experiment
from fedstil_mpi.data.stream import Task
from fedstil_mpi.evaluation import retrieval
from fedstil_mpi.evaluation.lifelong import METRICS
from fedstil_mpi.memory import Memory, Samples
from fedstil_mpi.models.network import Network, Tail
from fedstil_mpi.representations import represent
from fedstil_mpi.schedule import Epoch, ReferenceRate, task_begins, task_ends, task_of_draw
from fedstil_mpi.training import Batch, Penalty, batch_indices, train_round


class Learner:
    """A client as every method sees it. What is special about a method stays in `methods/`."""

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
        self.tail: Tail = copy.deepcopy(network.tail)
        self.device = next(self.tail.parameters()).device
        memory = experiment.memory
        self.memory = Memory(
            memory.size, repeat=memory.herding == "repeat", collide=memory.labels == "collide", quota=memory.quota
        )
        self.known: set[int] = set()
        """People this client has met as training people."""
        self.relayed: list[Samples] = []
        """Prototypes of known people as other clients saw them."""
        self.draws = 0
        self.task = -1
        self.samples = 0
        """New images seen in the last round's training."""
        self.passes: Counter[str] = Counter()
        """Images that passed the stem ("stem"), the tail with gradients ("train") and the tail without ("search")."""
        self._rate = ReferenceRate(experiment.train.lr)
        self._clean: dict[tuple[int, str], Tensor] = {}
        self._before = representations if representations is not None else {}
        self._view: tuple[tuple[int, ...], Samples] | None = None

    def start_from(self, network: Network) -> None:
        """Take over the start model's tail; what was learned before is lost."""
        self.tail.load_state_dict(network.tail.state_dict())

    def fingerprint(self) -> str:
        """SHA-256 of the tail's parameters and buffers: equal exactly where two models are equal to the last bit.

        Empty for a client that was never drawn and has no model yet.
        """
        if not self.draws:
            return ""
        digest = hashlib.sha256()
        for name, tensor in self.tail.state_dict().items():
            digest.update(name.encode() + tensor.cpu().numpy().tobytes())
        return digest.hexdigest()

    def begin_round(self) -> None:
        """Being drawn moves the client along its stream; a new task brings new people."""
        self.draws += 1
        self.task = task_of_draw(self.draws, self.experiment.rounds.per_task, len(self.tasks))
        self.known.update(self.tasks[self.task].train.persons.tolist())

    @property
    def task_is_new(self) -> bool:
        """Whether this round is the client's first on its task."""
        return task_begins(self.draws, self.experiment.rounds.per_task, len(self.tasks))

    @property
    def task_ends(self) -> bool:
        """Whether this round is the client's last on its task, which never is the case for the last task."""
        return task_ends(self.draws, self.experiment.rounds.per_task, len(self.tasks))

    # -- training ------------------------------------------------------------------------------------------------------

    def train(self, round: int, penalty: Penalty) -> Epoch:
        """Train on the current task and the memory; then choose exemplars of the task's people anew.

        Returns the loss and accuracy of the round (of its last epoch where epochs are counted).
        """
        settings = self.experiment.train
        torch.manual_seed(self._seed("train", round))
        self.samples = 0
        epoch_of = partial(self._epoch, round)
        report = train_round(self.tail, epoch_of, settings, self._rate, self.allowed(), penalty)
        self._remember()
        return report

    def _epoch(self, round: int, epoch: int) -> Iterator[Batch]:
        """The batches of one pass over the task's training images, mixed with remembered ones."""
        train = self.experiment.train
        new = self._new_samples(round, epoch)
        old = self.rehearsed()
        pool = new if old is None else Samples.concatenate([new, old])
        generator = torch.Generator().manual_seed(self._seed("batches", round, epoch))
        for index in batch_indices(
            len(new), len(pool) - len(new), train.batch, self.experiment.memory.share, generator
        ):
            self.samples += int((index < len(new)).sum())
            self.passes["train"] += len(index)
            chosen = index.to(self.device)
            yield Batch(pool[chosen], (chosen - len(new)).clamp(min=-1))

    def _new_samples(self, round: int, epoch: int) -> Samples:
        """The task's training images through the stem with this refresh's augmentation."""
        train = self.experiment.train
        if train.augment == "none":
            return self.clean_samples()
        when = {"task": (self.task,), "round": (self.task, round), "epoch": (self.task, round, epoch)}[train.refresh]
        if self._view is None or self._view[0] != when:
            pixels = self.tasks[self.task].train.pixels
            seed = self._seed("augment", *when)
            representations = represent(self.stem, pixels, self.device, train.augment, seed)
            self.passes["stem"] += len(pixels)
            self._view = (when, self._labelled(representations))
        return self._view[1]

    def rehearsed(self) -> Samples | None:
        """What is rehearsed in this round: exemplars of people who are not in the current task, then relayed prototypes."""
        if self.experiment.memory.size == 0 and not self.relayed:
            return None
        together = self.experiment.memory.share is None
        current = set() if together else set(self.tasks[self.task].train.persons.tolist())
        exemplars = self.memory.recall(without=current)
        parts = ([exemplars] if exemplars is not None else []) + self.relayed
        return Samples.concatenate(parts) if parts else None

    @torch.no_grad()
    def _remember(self) -> None:
        if self.experiment.memory.size == 0:
            return
        samples = self.clean_samples()
        self.tail.eval()
        self.passes["search"] += len(samples)
        self.memory.store(samples, self.tail.features(samples.representations))

    def _seed(self, purpose: str, *when: int) -> int:
        return seeding.integer(self.experiment.seed, purpose, self.client, *when)

    # -- what the client knows of its task -----------------------------------------------------------------------------

    def clean_samples(self) -> Samples:
        """The current task's training images, not augmented."""
        return self._labelled(self._representations(self.task, "train"))

    def token(self) -> Tensor:
        """Task token: the mean representation of the current task's training images, [D] on the CPU."""
        return self._representations(self.task, "train").flatten(1).mean(0).cpu()

    def identity_prototypes(self) -> tuple[Tensor, Tensor]:
        """People of the current task (int64 [n]) and each one's mean representation ([n, D]), on the CPU."""
        samples = self.clean_samples()
        people = samples.persons.unique()
        means = [samples.representations[samples.persons == person].flatten(1).mean(0) for person in people]
        return people.cpu(), torch.stack(means).cpu()

    def receive_prototypes(self, people: Tensor, prototypes: Tensor) -> None:
        """Add relayed prototypes ([n, D], of people int64 [n]) to what is rehearsed."""
        if not len(people):
            return
        shape = self._representations(self.task if self.task >= 0 else 0, "train").shape[1:]
        self.relayed.append(
            Samples(
                prototypes.to(self.device, copy=True).view(-1, *shape),
                people.to(self.device, copy=True),
                torch.full((len(people),), -1, device=self.device),
            )
        )

    def _labelled(self, representations: Tensor) -> Samples:
        persons = self.tasks[self.task].train.persons
        indices = np.unique(persons, return_inverse=True)[1]
        return Samples(
            representations, torch.from_numpy(persons).to(self.device), torch.from_numpy(indices).to(self.device)
        )

    def _representations(self, task: int, split: str) -> Tensor:
        """Representations of a split without augmentation; the stem is frozen, so they are computed once a run."""
        if (task, split) not in self._clean:
            pixels = getattr(self.tasks[task], split).pixels
            self.passes["stem"] += len(pixels)  # as if this run were the first
            known = self._before.get((self.client, task, split))
            made = represent(self.stem, pixels, self.device) if known is None else known
            self._clean[task, split] = self._before[self.client, task, split] = made
        return self._clean[task, split]

    def allowed(self) -> Tensor | None:
        """The classes in the softmax, bool [C] on the device; None for all."""
        if self.experiment.train.softmax == "all":
            return None
        mask = torch.zeros(self.tail.classifier.out_features, dtype=torch.bool)
        mask[sorted(self.known)] = True
        return mask.to(self.device)

    # -- evaluation ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self, tail_for: Callable[[int], Tail] | None = None) -> np.ndarray:
        """Retrieval metrics by task, float64 [tasks, len(METRICS)]; nan for tasks that are not evaluated.

        tail_for: the model that a task is searched with, by default the client's newest for all. A client that was never
        drawn has no model yet, and is not evaluated.
        """
        settings = self.experiment.evaluation
        last = len(self.tasks) if settings.tasks == "all" and self.draws else self.task + 1
        metrics = np.full((len(self.tasks), len(METRICS)), np.nan)
        for task in range(last):
            query, gallery = self.tasks[task].query, self.tasks[task].gallery
            self.passes["search"] += len(query) + len(gallery)
            tail = (tail_for(task) if tail_for else self.tail).eval()
            result = retrieval.evaluate(
                tail.features(self._representations(task, "query")),
                query.persons,
                tail.features(self._representations(task, "gallery")),
                gallery.persons,
                query.cameras,
                gallery.cameras,
                protocol=settings.protocol,
            )
            metrics[task] = [result.rank(k) for k in (1, 3, 5, 10)] + [result.map]
        return metrics
