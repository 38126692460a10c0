"""k-reciprocal re-ranking (Zhong, Zheng, Cao, Li: Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017).

Two images are alike where they are among each other's nearest neighbours and share these. Queries and gallery are one set, as in
the paper, so that the other queries, and junk, help to rank; neither labels nor cameras do.
"""

import torch
from torch import Tensor

K1, K2, SHARE = 20, 6, 0.3
"""The paper's numbers for Market-1501: neighbours of an image, neighbours over which it is averaged, and the share of the
distance that it had."""


def reranked(distances: Tensor, queries: int, k1: int = K1, k2: int = K2, share: float = SHARE) -> Tensor:
    """The new distances of queries to gallery, float64 [queries, n - queries].

    distances: float64 [n, n] of all images to each other, the queries first; 0 or more, and symmetric. Equal distances keep
    their order. Takes memory for a few matrices of this size.
    """
    own = distances / distances.amax(1, keepdim=True).clamp(min=torch.finfo(distances.dtype).tiny)
    order = own.argsort(dim=1, stable=True)
    near, nearest = _reciprocal(order, k1), _reciprocal(order, round(k1 / 2))
    shared = nearest @ near.T  # [c, i]: how many of c's nearest are near i
    joins = near * (2 * nearest.sum(1) < 3 * shared.T)
    expanded = (near + joins @ nearest) > 0
    weights = (-own).exp() * expanded
    weights /= weights.sum(1, keepdim=True)
    if k2 > 1:
        weights = torch.stack([weights[neighbours].mean(0) for neighbours in order[:, :k2]])
    jaccard = torch.stack([_jaccard(weights, query, queries) for query in range(queries)])
    return (1 - share) * jaccard + share * own[:queries, queries:]


def _reciprocal(order: Tensor, k: int) -> Tensor:
    """float32 [n, n]: 1 where two images are among the first k of each other, themselves beside them."""
    forward = torch.zeros(order.shape, device=order.device).scatter_(1, order[:, : k + 1], 1.0)
    return forward * forward.T


def _jaccard(weights: Tensor, query: int, queries: int) -> Tensor:
    """Of a query to the gallery, float64 [n - queries]; every row of weights adds up to 1."""
    columns = weights[query].nonzero()[:, 0]
    common = torch.minimum(weights[query, columns], weights[queries:, columns]).sum(1)
    return 1 - common / (2 - common)
