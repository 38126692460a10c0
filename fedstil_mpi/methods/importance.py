"""How much what was learned depends on each parameter: the diagonal Fisher information of EWC, the sensitivity of MAS.

Both are sums over batches of weight * |gradient|^power. They are estimated at the end of a task on its training images
as they are, in evaluation mode, so that no statistic of a batch norm moves. The reference code's estimate is made again
after every round, in training mode, over whole batches of all remembered tasks.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from fedstil_mpi.client.augmentation import Augmentation
from fedstil_mpi.client.batches import batch_indices
from fedstil_mpi.client.learner import Learner
from fedstil_mpi.client.local_training import set_seed
from fedstil_mpi.client.representations import PLAIN
from fedstil_mpi.models.losses import smoothed_cross_entropy
from fedstil_mpi.util import seeding
from fedstil_mpi.util.errors import InputError

Labelled = tuple[Tensor, Tensor]
"""Representations [n, ...] and person ids int64 [n]."""

Loss = Callable[[Labelled], Tensor]
"""The mean over a batch of what is differentiated: a scalar."""


def check_data(data: str, importance: str) -> None:
    """Raise InputError where queries are read although `importance` needs training images."""
    if data == "query" and importance == "task":
        raise InputError("method.data = 'query'; expected train, or query where method.importance is round")


# -- the estimates -----------------------------------------------------------------------------------------------------


def fisher(learner: Learner, parameters: Sequence[Tensor], micro_batch: int) -> list[Tensor]:
    """Diagonal of the empirical Fisher information of the current task: E[(d loss / d parameter)^2] over its samples.

    micro_batch: samples a backward pass; 1: exact. The squared mean gradient of b samples stands for 1/b of the mean of
    their squares, which is its expectation where the gradients of the samples are independent with mean 0.
    Returns one tensor per parameter, in its shape and on its device.
    """
    return per_sample(parameters, _micro_batches(learner, micro_batch), training_loss(learner), power=2)


def sensitivity(learner: Learner, parameters: Sequence[Tensor], micro_batch: int) -> list[Tensor]:
    """E|d ||scores||^2 / d parameter| over the current task's samples, whose labels are not used; else as `fisher`."""
    return per_sample(parameters, _micro_batches(learner, micro_batch), _squared_scores(learner), power=1)


def reference_code(
    learner: Learner, parameters: Sequence[Tensor], tasks: Iterable[int], split: str, power: int
) -> list[Tensor]:
    """The reference code's estimate over one pass through a split of these tasks; it moves batch norms' statistics."""
    batches = [batch for task in tasks for batch in _loader(learner, task, split)]
    learner.tail.train()
    set_seed(_seed(learner, "passes"), learner.device)  # of dropout
    return per_batch(parameters, batches, training_loss(learner), power)


def per_sample(parameters: Sequence[Tensor], batches: Sequence[Labelled], loss: Loss, power: int) -> list[Tensor]:
    """The mean over samples of |gradient|^power, where micro-batches stand for their samples."""
    samples = sum(len(pids) for _, pids in batches)
    return _weighted(parameters, batches, loss, power, [len(pids) ** power / samples for _, pids in batches])


def per_batch(parameters: Sequence[Tensor], batches: Sequence[Labelled], loss: Loss, power: int) -> list[Tensor]:
    """The mean over batches of |gradient of the batch's mean loss|^power * size of the batch, as in the reference code.

    It grows with the size of the batches.
    """
    return _weighted(parameters, batches, loss, power, [len(pids) / len(batches) for _, pids in batches])


def _weighted(
    parameters: Sequence[Tensor], batches: Sequence[Labelled], loss: Loss, power: int, weights: Sequence[float]
) -> list[Tensor]:
    totals = [torch.zeros_like(parameter) for parameter in parameters]
    for batch, weight in zip(batches, weights, strict=True):
        gradients = torch.autograd.grad(loss(batch), parameters)
        for total, gradient in zip(totals, gradients, strict=True):
            total.add_(gradient.abs().pow_(power), alpha=weight)
    return totals


# -- what is differentiated, on which samples --------------------------------------------------------------------------


def training_loss(learner: Learner) -> Loss:
    """The loss that the client is trained with, for its model in the mode it is in."""
    allowed, smoothing = learner.allowed(), learner.experiment.train.label_smoothing
    return lambda batch: smoothed_cross_entropy(learner.tail(batch[0])[0], batch[1], smoothing, allowed=allowed)


def _squared_scores(learner: Learner) -> Loss:
    """||scores||^2, of the classes in the softmax: the others are no output of the model yet."""
    allowed = learner.allowed()

    def loss(batch: Labelled) -> Tensor:
        scores = learner.tail(batch[0])[0]
        return (scores if allowed is None else scores[:, allowed]).square().sum(1).mean()

    return loss


def _micro_batches(learner: Learner, size: int) -> list[Labelled]:
    """The current task's training images, not augmented, for a model in evaluation mode.

    Shuffled: with the images of one person next to each other, or never together, the mean gradient of a batch would be
    larger or smaller than that of independent samples, by far.
    """
    learner.tail.eval()
    samples = learner.clean_samples()
    learner.forward_counts["train"] += len(samples)
    if learner.counts_only:  # the shape of the estimate is known without them
        return []
    order = torch.randperm(len(samples), generator=_generator(learner, "samples")).to(learner.device)
    return [(samples.representations[index], samples.pids[index]) for index in order.split(size)]


def _loader(learner: Learner, task: int, split: str) -> list[Labelled]:
    """One shuffled pass over a split of a task, in batches as in training; only training images are augmented.

    Images of people that the client has not trained on are left out: there is no loss for them.
    """
    images, train = getattr(learner.tasks[task], split), learner.experiment.train
    known = np.isin(images.pids, list(learner.known))
    pixels, pids = images.pixels[known], torch.from_numpy(images.pids[known]).to(learner.device)
    learner.forward_counts["stem"] += len(pixels)
    learner.forward_counts["train"] += len(pixels)
    if learner.counts_only:  # as for micro-batches
        return []
    how = Augmentation.of(train) if split == "train" else PLAIN
    seed = _seed(learner, "augment", task)
    representations = learner.represent(pixels, how, seed)
    order = batch_indices(len(pixels), 0, train.batch, None, _generator(learner, "batches", task))
    return [(representations[index], pids[index]) for index in (part.to(learner.device) for part in order)]


def _seed(learner: Learner, purpose: str, *what: int) -> int:
    """The seed for one purpose in the client's present round."""
    return seeding.integer(learner.experiment.seed, f"importance {purpose}", learner.client, learner.draws, *what)


def _generator(learner: Learner, purpose: str, *what: int) -> torch.Generator:
    return torch.Generator().manual_seed(_seed(learner, purpose, *what))
