"""iCaRL: incremental classifier and representation learning (Rebuffi et al., CVPR 2017), every client for itself.

Exemplars are chosen by herding, as everywhere here. What iCaRL adds is a loss that keeps old logits: before a round the
model, as it stands, scores everything that is rehearsed, and in the round each of these samples meets its own old
scores. (The paper distils new images too; here they are left to the cross entropy.) Nothing travels after first contact.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fedstil_mpi.client.batches import Batch
from fedstil_mpi.client.learner import Learner
from fedstil_mpi.client.rehearsal import Samples
from fedstil_mpi.config.fields import FLOAT32, bounded, choice
from fedstil_mpi.methods import base, single
from fedstil_mpi.methods.base import Server, Setup
from fedstil_mpi.models.distillation import distillation_loss, sigmoid_distillation_loss

__all__ = ["PRESETS", "Client", "Options", "Server"]

CHUNK = 256
"""Samples scored at once."""


@dataclass(kw_only=True)
class Options:
    distillation: float = bounded(1.0, 0, FLOAT32)
    """Weight of the extra loss of rehearsed samples; 0: rehearsal alone."""
    targets: str = choice("sigmoid", "softmax")
    """sigmoid (the paper: classes are questions of their own, binary cross entropy against the label and against the
    old logits) | softmax (temperature KL against the old logits; the label has its cross entropy anyway)."""
    temperature: float = bounded(2.0, 1e-3, FLOAT32)
    """Temperature of the softmax targets."""


PRESETS: dict[str, dict[str, Any]] = {
    "best": {},
    "paper": {"train.softmax": "all", "memory.share": None},
    "reference_code": single.REFERENCE_CODE
    | {
        "memory.share": None,
        "memory.herding": "repeat",
        "memory.quota": "width",
        "train.rate": "constant",  # the reference code rebuilds its optimiser each epoch, at the first rate
    },
}


class OldLogits(NamedTuple):
    """What rehearsed samples are to keep, and how it is asked of them."""

    logits: Tensor
    """[rehearsed, old classes]: the scores before the round, a row for each of `Learner.rehearsed()`."""
    classes: Tensor
    """int64 [old classes]."""
    allowed: Tensor | None
    """bool [C], the classes in the softmax; None for all."""
    options: Options


class Client(base.Client):
    options: Options
    transient = ("old_logits", "old")

    def __init__(self, learner: Learner, setup: Setup, options: Options):
        super().__init__(learner, setup, options)
        self.old_logits: Tensor | None = None
        """As in `OldLogits`; None where there is nothing to keep."""

    def begin(self) -> None:
        """Nothing is kept in the first task, where there are no old classes."""
        past = [self.learner.tasks[task] for task in range(self.learner.task)]
        old = sorted({person for task in past for person in task.train.people.tolist()})
        self.old = torch.tensor(old, device=self.learner.device)
        rehearsed = self.learner.rehearsed() if self.options.distillation and past else None
        self.old_logits = self._answer(rehearsed) if rehearsed is not None else None

    @torch.no_grad()
    def _answer(self, samples: Samples) -> Tensor:
        tail = self.learner.tail.eval()
        self.learner.forward_counts["search"] += len(samples)
        if self.learner.counts_only:  # nobody trains with them
            return torch.empty(0, len(self.old))
        return torch.cat([tail(part)[0][:, self.old] for part in samples.representations.split(CHUNK)])

    def context(self) -> OldLogits | None:
        if self.old_logits is None:
            return None
        return OldLogits(self.old_logits, self.old, self.learner.allowed(), self.options)

    @staticmethod
    def penalty(parameters: Mapping[str, Tensor], context: OldLogits, batch: Batch, scores: Tensor) -> Tensor | None:
        kept = torch.nonzero(batch.rehearsed >= 0)[:, 0]
        if not len(kept):
            return None
        now, before, options = scores[kept], context.logits[batch.rehearsed[kept]], context.options
        if options.targets == "softmax":
            loss = distillation_loss(now[:, context.classes], before, options.temperature)
        else:
            loss = class_loss(now, batch.samples.pids[kept], context.allowed)
            loss = loss + sigmoid_distillation_loss(now[:, context.classes], before)
        return options.distillation * loss


def class_loss(scores: Tensor, pids: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Binary cross entropy against the one-hot label, averaged over all samples and allowed classes: a scalar.

    scores: float32 [n, C]; pids: int64 [n], below C and allowed; allowed: bool [C], None for all.
    """
    targets = F.one_hot(pids, scores.shape[1]).to(scores.dtype)
    if allowed is not None:
        scores, targets = scores[:, allowed], targets[:, allowed]
    return F.binary_cross_entropy_with_logits(scores, targets)
