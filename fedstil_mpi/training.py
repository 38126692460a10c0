"""Local training, the same for every method: batches of new and remembered samples, one optimiser step each."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, count, islice

import torch
from torch import Tensor

from fedstil_mpi.config import Train
from fedstil_mpi.memory import Samples
from fedstil_mpi.models.losses import smoothed_cross_entropy, supervised_contrast
from fedstil_mpi.models.network import Tail
from fedstil_mpi.models.triplet import triplet_loss
from fedstil_mpi.schedule import EarlyStop, Epoch, ReferenceRate, run_epochs

TRIPLET_MARGIN = 0.3
"""Of cosine distances."""


@dataclass(frozen=True)
class Batch:
    """What one optimiser step is made of."""

    samples: Samples
    """n samples, new and remembered ones."""
    rehearsed: Tensor
    """int64 [n]: the sample's row in `Learner.rehearsed()` of the round, -1 for a new image."""


Penalty = Callable[[Batch, Tensor], Tensor | None]
"""A method's extra loss for a batch and its scores, float32 [n, C], at the current weights; None for none."""


def train_round(
    tail: Tail,
    epoch_of: Callable[[int], Iterator[Batch]],
    settings: Train,
    rate: ReferenceRate,
    allowed: Tensor | None,
    penalty: Penalty,
) -> Epoch:
    """Train `tail` in place for one round with a fresh Adam; returns what its last epoch (or all steps) reported.

    epoch_of: the batches of the n-th pass over the data, n from 0. allowed: bool [C], the classes in the softmax, None
    for all. rate: the client's reference schedule, used where settings.rate asks for it.
    """
    parameters = [p for p in tail.parameters() if p.requires_grad]
    # Fused: without temporaries as large as the model, which on a CPU cost as much time as all the arithmetic.
    optimizer = torch.optim.Adam(parameters, settings.lr, weight_decay=settings.weight_decay, fused=True)
    if settings.steps:
        batches = chain.from_iterable(epoch_of(epoch) for epoch in count())
        return fit(tail, islice(batches, settings.steps), optimizer, settings, allowed, penalty)
    passes = count()

    def run(lr: float) -> Epoch:
        if settings.rate == "reference":
            for group in optimizer.param_groups:
                group["lr"] = lr
        return fit(tail, epoch_of(next(passes)), optimizer, settings, allowed, penalty)

    reports, _ = run_epochs(settings.epochs, run, EarlyStop() if settings.early_stop else None, rate)
    return reports[-1]


def fit(
    tail: Tail,
    batches: Iterator[Batch],
    optimizer: torch.optim.Optimizer,
    settings: Train,
    allowed: Tensor | None,
    penalty: Penalty,
) -> Epoch:
    """One optimiser step per batch. Loss and accuracy are the cross entropy's, so that methods can be compared."""
    device = next(tail.parameters()).device
    tail.train()
    losses: list[Tensor] = []
    correct, seen = torch.zeros((), dtype=torch.int64, device=device), 0
    for batch in batches:
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            scores, features = (output.float() for output in tail(batch.samples.representations))
        persons = batch.samples.persons
        loss = smoothed_cross_entropy(scores, persons, settings.label_smoothing, allowed=allowed)
        total = loss + _metric_loss(settings, features, persons)
        extra = penalty(batch, scores)
        optimizer.zero_grad(set_to_none=True)
        (total if extra is None else total + extra).backward()
        optimizer.step()
        losses.append(loss.detach())
        correct += (scores.detach().argmax(1) == persons).sum()
        seen += len(persons)
    optimizer.zero_grad(set_to_none=True)  # gradients as large as the model, of every client of the rank
    return Epoch(torch.stack(losses).mean().item(), correct.item() / seen, seen)


def _metric_loss(settings: Train, features: Tensor, persons: Tensor) -> Tensor | float:
    """What the config asks for beside the cross entropy."""
    total: Tensor | float = 0.0
    if settings.contrast:
        total += settings.contrast * supervised_contrast(features, persons, settings.contrast_temperature)
    if settings.triplet:
        total += settings.triplet * triplet_loss(features, persons, margin=TRIPLET_MARGIN, normalise=True, hard=True)
    return total


def batch_indices(new: int, old: int, batch: int, share: float | None, generator: torch.Generator) -> Iterator[Tensor]:
    """Index batches of one pass over `new` samples (0..new-1), mixed with `old` ones (new..new+old-1).

    share: this share of each batch is old, drawn in turn from shuffled passes over the old ones; None: all samples are
    shuffled into one set. A last batch of a single sample is dropped, as batch norm cannot train on it.
    """
    if share is None or not old:
        order = torch.randperm(new + old, generator=generator)
        yield from (part for part in order.split(batch) if len(part) > 1)
        return
    quota = min(max(1, round(share * batch)), batch - 1)
    rehearsed = chain.from_iterable(torch.randperm(old, generator=generator).tolist() for _ in count())
    for part in torch.randperm(new, generator=generator).split(batch - quota):
        yield torch.cat([part, new + torch.tensor(list(islice(rehearsed, quota)))])
