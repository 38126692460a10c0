"""What optimiser steps are made of: batches of new and remembered samples."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, count, islice

import torch
from torch import Tensor

from fedstil_mpi.client.rehearsal import Samples


@dataclass(frozen=True)
class Batch:
    """What one optimiser step is made of."""

    samples: Samples
    """n samples, new and remembered ones."""
    rehearsed: Tensor
    """int64 [n]: the sample's row in `Learner.rehearsed()` of the round, -1 for a new image."""


MakeBatch = Callable[[], Batch]
"""A batch that is made when it is called for: one that was trained on before an interruption is not."""


def make_batches(
    indices: Iterator[Tensor], new: int, fresh: Callable[[], Samples], old: Samples | None
) -> Iterator[tuple[Tensor, MakeBatch]]:
    """Index batches of `batch_indices`, each with what makes the batch; the samples are put together once, for the first.

    new: how many samples `fresh` gives; old: the remembered ones.
    """

    @cache
    def pool() -> Samples:
        return fresh() if old is None else Samples.concatenate([fresh(), old])

    def make(index: Tensor) -> Batch:
        samples = pool()
        index = index.to(samples.pids.device)
        return Batch(samples[index], (index - new).clamp(min=-1))

    return ((index, partial(make, index)) for index in indices)


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
