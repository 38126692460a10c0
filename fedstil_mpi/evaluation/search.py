"""Where the queries of a client are searched: in their task's gallery, in all of the client's, or in those of all clients.

`evaluation.gallery` says which. A client's joined gallery has an image once, even where several of its tasks have it. The
joined gallery of all clients has it once for each client, as each extracts features with a model of its own.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedstil_mpi.client.learner import Learner
from fedstil_mpi.data.streams.base import Images
from fedstil_mpi.evaluation import retrieval
from fedstil_mpi.evaluation.lifelong import METRICS
from fedstil_mpi.models.network import Tail

TailFor = Callable[[int], Tail]
"""The model that a task is searched with; it need be valid only until the next call."""


class Gallery(NamedTuple):
    """Images as features."""

    features: Tensor
    """float32 [n, F]."""
    labels: np.ndarray
    """int64 [n, 2]: person and camera."""


Score = Callable[[Tensor, Images, Gallery, str], Sequence[float]]
"""METRICS of queries, given as features [n, F] and labelled images, in a gallery, by a protocol."""


def score(features: Tensor, query: Images, gallery: Gallery, protocol: str) -> Sequence[float]:
    """The metrics of `retrieval.evaluate`."""
    result = retrieval.evaluate(
        features,
        query.pids,
        gallery.features,
        gallery.labels[:, 0],
        query.cameras,
        gallery.labels[:, 1],
        protocol=protocol,
    )
    return [*(result.rank(k) for k in (1, 3, 5, 10)), result.map, result.counted]


def evaluate(
    learner: Learner, tail_for: TailFor | None = None, global_gallery: Gallery | None = None, score: Score = score
) -> np.ndarray:
    """Retrieval metrics by task, float64 [tasks, len(METRICS)]; nan for tasks that are not evaluated.

    tail_for: the model that each task is searched with; None: the client's newest for all. global_gallery: what
    `gather` returned, needed where `evaluation.gallery` is all.
    """
    scope, protocol = learner.experiment.evaluation.gallery, learner.experiment.evaluation.protocol
    metrics = np.full((len(learner.tasks), len(METRICS)), np.nan)
    joined = client_gallery(learner) if scope == "client" and tail_for is None else global_gallery
    for task in learner.searched:
        tail = tail_for(task) if tail_for else learner.tail
        features = learner.extract_features(task, "query", tail)
        if scope == "task":
            gallery = _of_task(learner, task, tail)
        elif scope == "client" and tail_for:
            gallery = client_gallery(learner, _always(tail))
        else:
            assert joined is not None
            gallery = joined
        metrics[task] = score(features, learner.tasks[task].query, gallery, protocol)
    return metrics


def client_gallery(learner: Learner, tail_for: TailFor | None = None) -> Gallery:
    """The galleries of all tasks of the client that are evaluated, joined.

    tail_for: the model that extracts each task's features; None: the client's newest for all.
    """
    parts = []
    for task in learner.searched:
        gallery = _of_task(learner, task, tail_for(task) if tail_for else learner.tail)
        shown = learner.shown[task]
        parts.append(Gallery(gallery.features[torch.from_numpy(shown).to(learner.device)], gallery.labels[shown]))
    return _join(parts, learner.tail.classifier.in_features, learner.device)


def gather(share: Callable[[np.ndarray], np.ndarray], own: Sequence[Gallery], length: int) -> Gallery:
    """The galleries of all ranks' clients, joined in client order; valid on every rank. Collective: all ranks must call.

    share: rows of each rank -> rows of all ranks, on every rank (`Exchange.share`). own: the galleries of this rank's
    clients. length: F. The ledger does not book it: it serves measurement, a camera would not send it.
    """
    mine = _join(own, length, torch.device("cpu"))
    features = torch.from_numpy(share(mine.features.numpy()))
    return Gallery(features.to(own[0].features.device) if own else features, share(mine.labels))


def _of_task(learner: Learner, task: int, tail: Tail) -> Gallery:
    images = learner.tasks[task].gallery
    return Gallery(learner.extract_features(task, "gallery", tail), images.labels)


def _join(parts: Sequence[Gallery], length: int, device: torch.device) -> Gallery:
    """All rows, part by part, on the device."""
    features = [torch.empty(0, length, device=device), *(part.features.to(device) for part in parts)]
    return Gallery(torch.cat(features), np.concatenate([np.empty((0, 2), np.int64), *(part.labels for part in parts)]))


def _always(tail: Tail) -> TailFor:
    return lambda task: tail
