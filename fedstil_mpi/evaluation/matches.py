"""The gallery images that come first for a query, among them its best true and its best false match."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedstil_mpi.client.comparison import BY_COSINE, Comparison
from fedstil_mpi.client.representations import BATCH, represent
from fedstil_mpi.data.streams.base import Images, Task
from fedstil_mpi.models.network import Network
from fedstil_mpi.util.errors import InputError


class Match(NamedTuple):
    """A gallery image that a query is compared with."""

    kind: str
    """true (the query's person) | false."""
    gallery: int
    """Its index there."""
    rank: int
    """Its place in the gallery sorted by likeness, from 1."""


@torch.no_grad()
def features(network: Network, images: Images, comparison: Comparison = BY_COSINE) -> Tensor:
    """What a search compares of images, float64 [n, F], of length 1, on the CPU. Puts the tail into evaluation mode."""
    tail = network.tail.eval()
    representations = represent(network.stem, images.pixels, torch.device("cpu"))
    cameras = np.split(images.cameras, range(BATCH, len(images), BATCH))
    parts = zip(representations.split(BATCH), cameras, strict=True)
    found = [comparison.features(tail, *part) for part in parts]
    return torch.nn.functional.normalize(torch.cat(found).double(), dim=1)


def similarities(network: Network, task: Task, comparison: Comparison = BY_COSINE) -> Tensor:
    """Cosines of the `features`, float64 [queries, gallery]. Puts the tail into evaluation mode."""
    query, gallery = (features(network, split, comparison) for split in (task.query, task.gallery))
    return query @ gallery.T


def nearest(task: Task, query: int, similarity: Tensor, market: bool) -> np.ndarray:
    """The gallery sorted by likeness to a query, given its similarities [gallery]: indices, int64.

    market: without images of the query's person at the query's camera, which take no rank, as in the evaluation.
    """
    gallery, camera = task.gallery, task.query.cameras[query]
    junk = (gallery.pids == task.query.pids[query]) & (gallery.cameras == camera) & (camera >= 0) & market
    order = similarity.argsort(descending=True, stable=True).numpy()
    return order[~junk[order]]


def best(task: Task, query: int, similarity: Tensor, market: bool) -> Iterator[Match]:
    """The best true and the best false match of a query, by its similarities [gallery]; one of them if there is no other.

    market: gallery images of the query's person at the query's camera take no rank, as in the evaluation. Raises
    InputError where no others are left.
    """
    same = task.gallery.pids == task.query.pids[query]
    order = nearest(task, query, similarity, market)
    if not len(order):
        raise InputError(
            f"query {query} has no image to be compared with but of its own person and camera; choose another"
        )
    for kind, wanted in (("true", same), ("false", ~same)):
        ranks = np.flatnonzero(wanted[order])
        if len(ranks):
            yield Match(kind, int(order[ranks[0]]), int(ranks[0]) + 1)
