"""From how alike clients are to how much each takes from each other one.

W[i, j] is the weight of contributor j in receiver i's base; the rows of a relevance matrix W sum to 1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Weights(NamedTuple):
    """Rows of W, of O receivers, in two parts: mostly the plain mean and a few partners is all that a receiver takes."""

    mean_O: Tensor  # noqa: N815
    """Of the plain mean of all seen clients, float32 [O]."""
    beside_OK: Tensor  # noqa: N815
    """Of each contributor besides, float32 [O, K]."""

    def rows(self, seen_clients: list[int]) -> Tensor:
        """Of W, float32 [O, K]."""
        rows_OK = self.beside_OK.clone()
        rows_OK[:, seen_clients] += self.mean_O[:, None] / max(len(seen_clients), 1)
        return rows_OK

    def blended(self, share: float) -> "Weights":
        """With this share of the plain mean, and the rest of what it was."""
        return Weights((1 - share) * self.mean_O + share, (1 - share) * self.beside_OK)


def attention(
    scores_OK: Tensor, mean_score: float, own: float, seen_clients: list[int], receivers: Sequence[int]
) -> Weights:
    """A softmax over the other seen clients and one candidate more, their plain mean.

    scores_OK: of receiver i and contributor j; -inf: nothing is known that speaks for j. mean_score: of the plain mean of
    all seen clients, which a receiver that nobody has a score for takes alone. own: the receiver's own weight in what is
    not the mean's; one that was never seen has no model of its own to weigh. receivers: each row's client. Before anybody
    was seen each keeps its own.
    """
    rows, clients = torch.arange(len(receivers)), torch.tensor(receivers)
    if not seen_clients:
        return Weights(torch.zeros(len(rows)), torch.zeros_like(scores_OK).index_put_((rows, clients), torch.ones(())))
    seen = torch.tensor(seen_clients)
    candidates = torch.full_like(scores_OK, -torch.inf)
    candidates[:, seen] = scores_OK[:, seen]
    candidates[rows, clients] = -torch.inf
    nobody_O = candidates.isneginf().all(1)
    mean_O = torch.where(nobody_O, 0.0, mean_score)
    shares = torch.softmax(torch.cat([candidates, mean_O[:, None]], 1), 1)
    beside_OK, mean_O = shares[:, :-1], shares[:, -1]
    own_O = own * torch.isin(clients, seen)
    beside_OK *= 1 - own_O[:, None]
    beside_OK[rows, clients] = own_O * (1 - mean_O)
    return Weights(mean_O, beside_OK)


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
