"""From how alike clients are to how much each takes from each other one.

W[i, j] is the weight of contributor j in receiver i's base; the rows of a relevance matrix W sum to 1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def own_weights(similarity_KK: Tensor, self_weight: float, tau: float) -> list[float]:
    """What each receiver keeps of its own, [K]: `self_weight`, rising to 1 for a client that is left without partners.

    similarity_KK: non-negative, 0 where two clients have nothing to teach each other. Groups of clients that mix with
    each other move away from the rest, and the average of such groups serves a client that belongs to none of them
    worse than its own model does. So a client keeps more of its own where its best partner is less than a quarter as
    similar as the best pair of all, and the more so the sharper attention at temperature `tau` makes that pair's bond.
    Where nobody has a partner there are no groups, and `self_weight` holds for all.
    """
    best_K = similarity_KK.clone().fill_diagonal_(0).amax(1)
    bond = 1 - torch.exp(-best_K.max() / tau)
    lonely_K = 1 - (best_K / (0.25 * best_K.max()).clamp(min=1e-12)).clamp(max=1)
    return (self_weight + (1 - self_weight) * bond * lonely_K).tolist()


def attention(similarity_KK: Tensor, tau: float, own_K: Sequence[float], seen_clients: list[int]) -> Tensor:
    """softmax(similarity / tau) over the other seen clients, scaled to leave own_K[i] for receiver i.

    Equal similarities, all zero among them, give the plain average over the others. A receiver that was never seen
    has no model of its own to weigh; a receiver without others keeps its own. Rows sum to 1; float32 [K, K].
    """
    clients, n = len(similarity_KK), len(seen_clients)
    relevance_KK = torch.zeros(clients, clients)
    unseen = sorted(set(range(clients)) - set(seen_clients))
    if not n:
        return relevance_KK.fill_diagonal_(1.0)
    seen = torch.tensor(seen_clients)
    if unseen:
        receivers = torch.tensor(unseen)[:, None]
        relevance_KK[receivers, seen] = torch.softmax(similarity_KK[receivers, seen] / tau, 1)
    if n == 1:
        relevance_KK[seen, seen] = 1.0
        return relevance_KK
    own_n = torch.tensor([own_K[i] for i in seen_clients], dtype=torch.float64)
    square_nn = torch.zeros(n, n)
    others = _off_diagonal(similarity_KK[seen[:, None], seen]).reshape(n, n - 1)
    shares = (1 - own_n).float()[:, None] * torch.softmax(others / tau, 1)
    _off_diagonal(square_nn).copy_(shares.view(n - 1, n))
    square_nn.diagonal().copy_(own_n)
    relevance_KK[seen[:, None], seen] = square_nn
    return relevance_KK


def _off_diagonal(square_nn: Tensor) -> Tensor:
    """A view [n - 1, n] of all but the diagonal of a contiguous [n, n], in its order."""
    n = len(square_nn)
    return square_nn.view(-1)[1:].view(n - 1, n + 1)[:, :-1]


def reference_code_relevance(uploads: list[list[Tensor]], step: int, decay: float) -> tuple[Tensor, Tensor, Tensor]:
    """The reference code's relevance, share and weights (methods specification 5.9), each float64 [n, n].

    uploads: for each client its tokens, oldest first; at least one each. The weights pass a softmax although the shares
    sum to 1 already, distances of older tokens are added and grow with age, and the receiver's share is always 1/n.
    """
    n = len(uploads)
    if n == 1:
        one = torch.ones(1, 1, dtype=torch.float64)
        return one, one, one
    logs = [[torch.log_softmax(token.double(), 0) for token in tokens] for tokens in uploads]
    relevance = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n):
        p = logs[i][-1]
        for j in range(n):
            if i != j:
                distance = 1e-8
                for age, q in enumerate(logs[j][::-1][::step]):
                    distance += float((q.exp() * (q - p)).sum()) * decay**-age
                relevance[i, j] = 1 / distance
        relevance[i, i] = relevance[i].sum() / (n - 1)
    share = relevance / relevance.sum(1, keepdim=True)
    return relevance, share, torch.softmax(share, 1)
