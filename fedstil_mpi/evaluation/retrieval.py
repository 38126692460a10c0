"""Person retrieval: how early the right person comes up when a gallery is sorted by likeness to a query image."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import normalize

from fedstil_mpi.evaluation.reranking import reranked
from fedstil_mpi.util.errors import InputError

PROTOCOLS = ("market", "reference_code")

MIN_RANKS = 10
"""The CMC curve goes at least this far, so that rank-10 exists in a gallery of four images too."""


@dataclass(frozen=True)
class Retrieval:
    """Metrics of one query set in one gallery, as fractions; nan where no query counts, 0 where a model finds nobody."""

    cmc: np.ndarray
    """float64 [ranks], cmc[k - 1] = queries whose first match is among the k nearest. Behind the last gallery image the
    curve keeps its last value."""
    map: float
    """Mean average precision."""
    valid_queries: int
    """Queries with at least one match in the gallery."""
    queries: int
    counted: float
    """Share of the queries that the metrics are means over."""

    def rank(self, k: int) -> float:
        """The CMC curve at rank k, counted from 1."""
        if k < 1:
            raise IndexError(f"ranks are counted from 1, got {k}")
        return float(self.cmc[min(k, len(self.cmc)) - 1])


def evaluate(
    query: torch.Tensor,
    query_pids: torch.Tensor | np.ndarray,
    gallery: torch.Tensor,
    gallery_pids: torch.Tensor | np.ndarray,
    query_cameras: torch.Tensor | np.ndarray | None = None,
    gallery_cameras: torch.Tensor | np.ndarray | None = None,
    protocol: str = "market",
    rerank: bool = False,
) -> Retrieval:
    """Sort the gallery by cosine similarity to each query and score the order.

    `query` [q, d] and `gallery` [g, d] are floating-point features on one device, of any length (they are L2-normalised
    here, in float64); pids and cameras are integers [q] and [g]. Equal similarities keep the order of the gallery.
    rerank: by k-reciprocal re-ranking (`reranking.reranked`) of the distances of queries and gallery.

    Protocol "market" (Market-1501): gallery images of the query's person *and* camera are junk, they take no rank; this
    needs the cameras of both sides, and a camera below 0 is unknown and makes no junk. Queries without a match do not
    count. With matches at ranks p_1 < ... < p_G a query's average precision is the mean of i / p_i. Protocol
    "reference_code" is what FedSTIL's code reports: no junk, a query without a match counts as a miss, and its average precision
    is 1 if p_1 = 1, else 1 / (2 p_1).

    All metrics are nan if no query counts. What has features that are not finite is never found and finds nobody: of a
    model that has diverged all metrics are 0, and means over models do not lose it. Raises InputError for an unknown protocol.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"evaluation protocol '{protocol}' is unknown: choose one of {', '.join(PROTOCOLS)}")
    market = protocol == "market"
    query, gallery = (normalize(features.double(), dim=1) for features in (query, gallery))
    similarity = query @ gallery.T
    device = similarity.device
    good = _equal(query_pids, gallery_pids, device)
    junk = torch.zeros_like(good)
    if market and query_cameras is not None and gallery_cameras is not None:
        known = (torch.as_tensor(query_cameras, device=device) >= 0)[:, None]
        junk = good & known & _equal(query_cameras, gallery_cameras, device)

    found = similarity.isfinite()
    if rerank:
        both = torch.cat([query, gallery]).nan_to_num(0, 0, 0)
        similarity = -reranked((2 - 2 * both @ both.T).clamp(min=0), len(query))
    similarity = similarity.where(found, -torch.inf)
    nearest = similarity.argsort(dim=1, descending=True, stable=True)
    good = (good & ~junk).gather(1, nearest)
    matches = good.sum(1)
    good = good & found.gather(1, nearest)
    rank = (~junk).gather(1, nearest).cumsum(1)  # from 1; a junk image shares the rank of the image before it
    hits = good.cumsum(1)

    matched = matches > 0
    counted = matched if market else torch.ones_like(matched)
    precision = (_average_precision(good, rank, hits, matches) if market else _first_match(good, rank, hits))[
        counted
    ].mean()
    first_hits = (good & (hits == 1)).nonzero(as_tuple=True)
    ranks = max(len(gallery), MIN_RANKS)
    cmc = (rank[first_hits] - 1).bincount(minlength=ranks).cumsum(0) / counted.sum()
    share = float(counted.sum()) / max(len(query), 1)
    return Retrieval(cmc.cpu().double().numpy(), precision.item(), int(matched.sum()), len(query), share)


def _equal(rows: torch.Tensor | np.ndarray, columns: torch.Tensor | np.ndarray, device: torch.device) -> torch.Tensor:
    """bool [q, g]: which of the gallery's labels equal the query's."""
    return torch.as_tensor(rows, device=device)[:, None] == torch.as_tensor(columns, device=device)[None, :]


def _average_precision(
    good: torch.Tensor, rank: torch.Tensor, hits: torch.Tensor, matches: torch.Tensor
) -> torch.Tensor:
    """float64 [q] from the sorted matches, their ranks and their running count, all [q, g], and how many matches there are."""
    return (hits / _at_least_1(rank) * good).sum(1) / matches.clamp(min=1)


def _first_match(good: torch.Tensor, rank: torch.Tensor, hits: torch.Tensor) -> torch.Tensor:
    """As `_average_precision`, from the first match alone."""
    value = torch.where(rank == 1, 1.0, 1 / (2 * _at_least_1(rank)))
    return (value * (good & (hits == 1))).sum(1)


def _at_least_1(rank: torch.Tensor) -> torch.Tensor:
    """Junk that comes before everything else has rank 0; it is no match and is masked by its users."""
    return rank.clamp(min=1).double()
