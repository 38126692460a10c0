"""Local training, the same for every method: batches of new and remembered samples, one optimiser step each.

`Learner.train` (client/learner.py) makes the batches and calls `LocalTraining.run`; `_fit` is the loop over them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, count, islice
from typing import Any

import torch
from torch import Tensor

from fedstil_mpi.client.adam import Adam
from fedstil_mpi.client.batches import Batch, MakeBatch
from fedstil_mpi.client.epochs import EarlyStop, Epoch, ReferenceRate, run_epochs
from fedstil_mpi.config.schema import Train
from fedstil_mpi.models.losses import smoothed_cross_entropy, supervised_contrast
from fedstil_mpi.models.network import Tail, trainable_parameters
from fedstil_mpi.models.triplet import triplet_loss
from fedstil_mpi.util.state_tree import State

TRIPLET_MARGIN = 0.3
"""A difference of cosine distances."""


Penalty = Callable[[Mapping[str, Tensor], Any, Batch, Tensor], Tensor | None]
"""A method's extra loss, None for none. Its arguments: the tail's trained parameters by name, the method's context, a
batch and the batch's scores, float32 [n, C]."""


def shortened(settings: Train, effort: float) -> Train:
    """The settings of a straggler, who does this share of its steps or epochs, but at least one."""
    if effort == 1:
        return settings
    return replace(
        settings,
        steps=max(min(1, settings.steps), round(effort * settings.steps)),
        epochs=max(min(1, settings.epochs), round(effort * settings.epochs)),
    )


def set_seed(seed: int, device: torch.device) -> None:
    """As `torch.manual_seed`, which would note for each kind of device that is not there who asked: a millisecond a call."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)


class Stopped(Exception):  # noqa: N818 - it is asked for, like StopIteration
    """Training was asked to stop, and has, between two batches."""


class Diverged(Exception):  # noqa: N818 - read in the learner's message
    """The loss is no finite number any more; says which, and at which step it was so first."""


@dataclass
class EpochMeter:
    """What a pass over the data has come to so far."""

    losses: list[Tensor] = field(default_factory=list)
    """The cross entropy of each batch."""
    totals: list[Tensor] = field(default_factory=list)
    """What each batch's step was taken on: with what a method and the config add."""
    correct: Tensor | int = 0
    seen: int = 0

    def report(self) -> Epoch:
        return Epoch(torch.stack(self.losses).mean().item(), int(self.correct) / self.seen, self.seen)

    def check(self) -> None:
        """Raise Diverged where a step was taken on what is not finite. Once a pass, so that a GPU need not wait at each."""
        totals = torch.stack(self.totals)
        if not totals.isfinite().all():
            step = int(totals.isfinite().int().argmin())
            raise Diverged(f"step {step + 1}: the loss is {totals[step].item()}")


class LocalTraining:
    """A client's training of one round with a fresh Adam, which can be stopped and taken up again later.

    Loss and accuracy are the cross entropy's, so that methods can be compared.
    """

    def __init__(self, tail: Tail, settings: Train, rate: ReferenceRate):
        """tail: trained in place. rate: the client's reference schedule, used where settings.rate asks for it."""
        self.tail = tail
        self.parameters = trainable_parameters(tail)
        self.settings = settings
        self.rate = rate
        self.optimizer: Adam | None = None
        """None when nothing is left to do: its moments are twice as large as the model."""
        self.epochs: list[Epoch] = []
        """What the finished passes reported, where epochs are counted."""
        self.meter = EpochMeter()
        """The pass that is under way."""
        self._before: State | None = None

    def run(
        self,
        epoch_of: Callable[[int], Iterator[MakeBatch]],
        allowed: Tensor | None,
        penalty: Penalty,
        context: Any,
        stop: Callable[[], bool] = lambda: False,
    ) -> Epoch:
        """Train to the end; returns what the last epoch (or all steps) reported.

        epoch_of: the batches of the n-th pass over the data, n from 0. allowed: bool [C], the classes in the softmax,
        None for all. context: of the penalty; None: there is no penalty. stop: asked after every batch. Raises Stopped,
        after which `state` says how far it has come.
        """
        self.optimizer = Adam(self.parameters.values(), self.settings.lr, self.settings.weight_decay)
        if self._before is not None:
            self._take_up(self._before)

        def extra_loss(batch: Batch, scores: Tensor) -> Tensor | None:
            return None if context is None else penalty(self.parameters, context, batch, scores)

        def train(batches: Iterator[MakeBatch]) -> None:
            for _ in islice(batches, len(self.meter.losses)):
                pass  # done before a stop
            self._fit(batches, allowed, extra_loss, stop)

        if self.settings.steps:
            train(islice(chain.from_iterable(epoch_of(epoch) for epoch in count()), self.settings.steps))
            report = self._report()
        else:
            report = self._run_epochs(epoch_of, train)
        self.optimizer = None
        return report

    def _report(self) -> Epoch:
        if self.settings.on_divergence == "stop":
            self.meter.check()
        return self.meter.report()

    def _run_epochs(
        self, epoch_of: Callable[[int], Iterator[MakeBatch]], train: Callable[[Iterator[MakeBatch]], None]
    ) -> Epoch:
        done = list(self.epochs)
        numbers = count()

        def run(lr: float) -> Epoch:
            number = next(numbers)
            if number < len(done):
                for _ in epoch_of(number):
                    pass
                return done[number]
            if self.settings.rate == "reference_code" and self.optimizer is not None:
                self.optimizer.lr = lr
            train(epoch_of(number))
            try:
                self.epochs.append(self._report())
            except Diverged as error:
                raise Diverged(f"epoch {number + 1}, {error}") from None
            self.meter = EpochMeter()
            return self.epochs[-1]

        reports = run_epochs(self.settings.epochs, run, EarlyStop() if self.settings.early_stop else None, self.rate)
        return reports[-1]

    def _fit(
        self,
        batches: Iterator[MakeBatch],
        allowed: Tensor | None,
        extra_loss: Callable[[Batch, Tensor], Tensor | None],
        stop: Callable[[], bool],
    ) -> None:
        """One optimiser step per batch."""
        assert self.optimizer is not None
        settings, meter = self.settings, self.meter
        self.tail.train()
        for make in batches:
            batch = make()
            scores, features = self.tail(batch.samples.representations)
            pids = batch.samples.pids
            loss = smoothed_cross_entropy(scores, pids, settings.label_smoothing, allowed=allowed)
            total = loss + _metric_loss(settings, features, pids)
            extra = extra_loss(batch, scores)
            self.optimizer.clear()
            total = total if extra is None else total + extra
            total.backward()
            self.optimizer.step()
            meter.losses.append(loss.detach())
            meter.totals.append(total.detach())
            meter.correct += (scores.detach().argmax(1) == pids).sum()
            meter.seen += len(pids)
            if stop():
                raise Stopped
        self.optimizer.clear()  # gradients as large as the model, of every client of the rank

    def state(self) -> State:
        """How far it has come: enough for a training of the same round to go on as if there had been no stop."""
        device = next(self.tail.parameters()).device
        return {
            "tail": dict(self.tail.state_dict()),
            "moments": self.optimizer.state() if self.optimizer is not None else {},
            "random": torch.get_rng_state(),
            "random_gpu": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            "epochs": [[epoch.loss, epoch.accuracy, epoch.images] for epoch in self.epochs],
            "losses": [loss.item() for loss in self.meter.losses],
            "totals": [total.item() for total in self.meter.totals],
            "correct": int(self.meter.correct),
            "seen": self.meter.seen,
        }

    def restore(self, state: State | None) -> None:
        """Go on from there, once `run` is called; None: from the beginning."""
        self._before = state

    def _take_up(self, state: State) -> None:
        assert self.optimizer is not None
        self._before = None  # as large as three models
        device = next(self.tail.parameters()).device
        self.tail.load_state_dict(state["tail"])
        self.optimizer.restore(state["moments"])
        torch.set_rng_state(state["random"])
        if state["random_gpu"] is not None and device.type == "cuda":
            torch.cuda.set_rng_state(state["random_gpu"], device)
        self.epochs = [Epoch(loss, accuracy, images) for loss, accuracy, images in state["epochs"]]
        losses, totals = ([torch.tensor(loss, device=device) for loss in state[name]] for name in ("losses", "totals"))
        self.meter = EpochMeter(losses, totals, state["correct"], state["seen"])


def _metric_loss(settings: Train, features: Tensor, pids: Tensor) -> Tensor | float:
    """What the config asks for beside the cross entropy."""
    total: Tensor | float = 0.0
    if settings.contrast:
        total += settings.contrast * supervised_contrast(features, pids, settings.contrast_temperature)
    if settings.triplet:
        total += settings.triplet * triplet_loss(features, pids, TRIPLET_MARGIN)
    return total
