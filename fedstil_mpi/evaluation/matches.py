"""The gallery images that come first for a query: its best true and its best false match."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedstil_mpi.client.representations import represent
from fedstil_mpi.data.streams.base import Task
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
def similarities(network: Network, task: Task) -> Tensor:
    """Cosines of the features, float64 [queries, gallery], on the CPU. Puts the tail into evaluation mode."""
    network.tail.eval()
    device = torch.device("cpu")
    representations = [represent(network.stem, split.pixels, device) for split in (task.query, task.gallery)]
    query, gallery = (torch.nn.functional.normalize(network.tail.features(r).double(), dim=1) for r in representations)
    return query @ gallery.T


def best(task: Task, query: int, similarity: Tensor, market: bool) -> Iterator[Match]:
    """The best true and the best false match of a query, by its similarities [gallery]; one of them if there is no other.

    market: gallery images of the query's person at the query's camera take no rank, as in the evaluation. Raises
    InputError where no others are left.
    """
    gallery, camera = task.gallery, task.query.cameras[query]
    same = gallery.pids == task.query.pids[query]
    junk = same & (gallery.cameras == camera) & (camera >= 0) & market
    nearest = similarity.argsort(descending=True, stable=True).numpy()
    nearest = nearest[~junk[nearest]]
    if not len(nearest):
        raise InputError(
            f"query {query} has only images of its own person and camera to be compared with; choose another"
        )
    for kind, wanted in (("true", same), ("false", ~same)):
        ranks = np.flatnonzero(wanted[nearest])
        if len(ranks):
            yield Match(kind, int(nearest[ranks[0]]), int(ranks[0]) + 1)
