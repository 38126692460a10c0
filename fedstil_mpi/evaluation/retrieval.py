"""Person retrieval: how early the right person comes up when a gallery is sorted by likeness to a query image."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import normalize

from fedstil_mpi.evaluation.reranking import reranked
from fedstil_mpi.util.errors import InputError

PROTOCOLS = ("market", "reference_code")

MIN_RANKS = 10
"""The CMC curve goes at least this far, so that rank-10 exists in a gallery of four images too."""

BLOCK = 1 << 14
"""Gallery images that are compared at a time, in double precision."""
PAIRS = 1 << 21
"""Pairs of a query and a gallery image that are sorted at a time, some 50 bytes each."""


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
    rerank: by k-reciprocal re-ranking (`reranking.reranked`) of the distances of queries and gallery. Without it what is needed
    beside the features is as large as `PAIRS` and `BLOCK` are, however many queries and images there are.

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
    query, device = normalize(query.double(), dim=1), query.device
    at_once = max(1, len(query) if rerank else PAIRS // max(1, len(gallery)))
    parts = []
    for start in range(0, max(1, len(query)), at_once):
        rows = slice(start, start + at_once)
        similarity = _similarity(query[rows], gallery)
        good = _equal(query_pids[rows], gallery_pids, device)
        junk = torch.zeros_like(good)
        if market and query_cameras is not None and gallery_cameras is not None:
            known = (torch.as_tensor(query_cameras[rows], device=device) >= 0)[:, None]
            junk = good & known & _equal(query_cameras[rows], gallery_cameras, device)
        nearness = _reranked(query, gallery) if rerank and len(query) else similarity
        parts.append(
            _score(similarity.isfinite(), nearness, good & ~junk, junk, _average_precision if market else _first_match)
        )
    matches, precision, first = (torch.cat(column) for column in zip(*parts, strict=True))

    matched = matches > 0
    counted = matched if market else torch.ones_like(matched)
    ranks = max(len(gallery), MIN_RANKS)
    cmc = (first[first > 0] - 1).bincount(minlength=ranks).cumsum(0).double() / counted.sum()
    share = float(counted.sum()) / max(len(query), 1)
    mean = precision[counted].mean().item()
    return Retrieval(cmc.cpu().numpy(), mean, int(matched.sum()), len(query), share)


def _similarity(query: torch.Tensor, gallery: torch.Tensor) -> torch.Tensor:
    """float64 [q, g] of normalised queries, float64 [q, d], and features [g, d]."""
    return torch.cat([query @ normalize(block.double(), dim=1).T for block in gallery.split(BLOCK)], dim=1)


def _reranked(query: torch.Tensor, gallery: torch.Tensor) -> torch.Tensor:
    """float64 [q, g], as `_similarity`: how near they are by all that is near to both."""
    both = torch.cat([query, normalize(gallery.double(), dim=1)]).nan_to_num(0, 0, 0)
    return -reranked((2 - 2 * both @ both.T).clamp(min=0), len(query))


def _score(
    found: torch.Tensor,
    similarity: torch.Tensor,
    good: torch.Tensor,
    junk: torch.Tensor,
    precision: Callable[..., torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of each query how many matches it has, its precision, and at which rank its first match is, 0 for none.

    found: what can be found at all; good: what is to be; all [q, g].
    """
    nearest = similarity.where(found, -torch.inf).argsort(dim=1, descending=True, stable=True)
    good = good.gather(1, nearest)
    matches = good.sum(1)
    good = good & found.gather(1, nearest)
    rank = (~junk).gather(1, nearest).cumsum(1)  # from 1; a junk image shares the rank of the image before it
    hits = good.cumsum(1)
    return matches, precision(good, rank, hits, matches), (rank * (good & (hits == 1))).sum(1)


def _equal(rows: torch.Tensor | np.ndarray, columns: torch.Tensor | np.ndarray, device: torch.device) -> torch.Tensor:
    """bool [q, g]: which of the gallery's labels equal the query's."""
    return torch.as_tensor(rows, device=device)[:, None] == torch.as_tensor(columns, device=device)[None, :]


def _average_precision(
    good: torch.Tensor, rank: torch.Tensor, hits: torch.Tensor, matches: torch.Tensor
) -> torch.Tensor:
    """float64 [q] from the sorted matches, their ranks and their running count, all [q, g], and how many matches there are."""
    return (hits / _at_least_1(rank) * good).sum(1) / matches.clamp(min=1)


def _first_match(good: torch.Tensor, rank: torch.Tensor, hits: torch.Tensor, matches: torch.Tensor) -> torch.Tensor:
    """As `_average_precision`, from the first match alone."""
    value = torch.where(rank == 1, 1.0, 1 / (2 * _at_least_1(rank)))
    return (value * (good & (hits == 1))).sum(1)


def _at_least_1(rank: torch.Tensor) -> torch.Tensor:
    """Junk that comes before everything else has rank 0; it is no match and is masked by its users."""
    return rank.clamp(min=1).double()
