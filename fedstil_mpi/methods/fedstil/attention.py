"""From how alike clients are to how much each takes from each other one.

W[i, j] is the weight of contributor j in receiver i's base; the rows of a relevance matrix W sum to 1.
"""

import torch
from torch import Tensor


def attention(scores_KK: Tensor, mean_score: float, own: float, seen_clients: list[int]) -> Tensor:
    """A softmax over the other seen clients and one candidate more, their plain mean; float32 [K, K], rows sum to 1.

    scores_KK: of receiver i and contributor j; -inf: nothing is known that speaks for j. mean_score: of the plain mean of
    all seen clients, which a receiver that nobody has a score for takes alone. own: the receiver's own weight in what is
    not the mean's; one that was never seen has no model of its own to weigh. Before anybody was seen it is the identity.
    """
    if not seen_clients:
        return torch.eye(len(scores_KK))
    seen = torch.tensor(seen_clients)
    candidates = torch.full_like(scores_KK, -torch.inf)
    candidates[:, seen] = scores_KK[:, seen]
    candidates.fill_diagonal_(-torch.inf)
    nobody_K = candidates.isneginf().all(1)
    mean_K = torch.where(nobody_K, 0.0, mean_score)
    shares = torch.softmax(torch.cat([candidates, mean_K[:, None]], 1), 1)
    relevance_KK, mean_K = shares[:, :-1], shares[:, -1:]
    own_n = own * (1 - mean_K[seen, 0])
    relevance_KK[seen] *= 1 - own
    relevance_KK[seen, seen] = own_n
    relevance_KK[:, seen] += mean_K / len(seen)
    return relevance_KK


def blend(relevance_KK: Tensor, mean_share: float, seen_clients: list[int]) -> Tensor:
    """`mean_share` of the plain mean of the seen clients, and the rest of the relevance, [K, K]; rows still sum to 1."""
    if not seen_clients or not mean_share:
        return relevance_KK
    blended_KK = (1 - mean_share) * relevance_KK
    blended_KK[:, seen_clients] += mean_share / len(seen_clients)
    return blended_KK


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
