"""How much client i can learn from client j: measures of likeness over space (clients) and time (their tasks).

A measure turns what the server has seen, a `History`, into similarities of some receivers to all clients, [O, K].
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from fedstil_mpi.methods.fedstil.history import History, TaskRecord

PAIRS = 4_000_000
"""About how many pairs of clients are counted at once."""

Measure = Callable[[History, float, Sequence[int]], Tensor]


def overlap(history: History, forgetting: float, receivers: Sequence[int]) -> Tensor:
    """Weighted Jaccard index of the people two clients know; a person last met n tasks ago weighs forgetting^n.

    Sum of minima / sum of maxima over all people that either knows; only those that both know add to the first.
    """
    weights: list[dict[int, float]] = [{}] * len(history.tasks)
    total_K = np.zeros(len(weights))
    for client in history.seen_clients():
        aged = reversed(_aged(history.tasks[client]))
        weights[client] = {person: forgetting**age for age, task in aged for person in task.people}
        total_K[client] = sum(weights[client].values())
    both_OK = _shared(weights, receivers)
    either_OK = total_K[list(receivers), None] + total_K - both_OK
    return torch.from_numpy(np.divide(both_OK, either_OK, out=np.zeros_like(both_OK), where=either_OK > 0)).float()


def _shared(weights: list[dict[int, float]], receivers: Sequence[int]) -> np.ndarray:
    """The smaller of two clients' weights, summed over the people that both know: float64 [O, K].

    weights: for each client, person -> weight. Pairs are counted person by person, for most clients share nobody.
    """
    clients = len(weights)
    people = np.array([person for of_client in weights for person in of_client], int)
    sizes = np.array([len(of_client) for of_client in weights])
    values = np.array([weight for of_client in weights for weight in of_client.values()])
    by_person = np.argsort(people, kind="stable")
    knowers = np.repeat(np.arange(clients), sizes)[by_person]
    known, first, counts = np.unique(people[by_person], return_index=True, return_counts=True)
    place = np.searchsorted(known, people)
    sizes_O = sizes[list(receivers)]
    rows = np.repeat(np.arange(len(receivers)), sizes_O)
    own = np.repeat(np.cumsum(sizes)[list(receivers)] - np.cumsum(sizes_O), sizes_O) + np.arange(len(rows))
    both = np.zeros(len(receivers) * clients)
    for part in np.array_split(np.arange(len(own)), 1 + counts[place[own]].sum() // PAIRS):
        of_part = place[own[part]]
        many = counts[of_part]
        others = np.repeat(first[of_part] + many - np.cumsum(many), many) + np.arange(many.sum())
        pairs = np.repeat(rows[part], many) * clients + knowers[others]
        minima = np.minimum(np.repeat(values[own[part]], many), values[by_person][others])
        both += np.bincount(pairs, minima, len(both))
    return both.reshape(len(receivers), clients)


def prototypes(history: History, forgetting: float, receivers: Sequence[int]) -> Tensor:
    """The overlap as far as it shows in identity prototypes, for cameras whose ids mean nothing to each other.

    A camera shows everybody in its own light and from its own side, so each client's mean is taken off first. Two
    prototypes are a pair where each is, by cosine, the nearest of all that either client has sent. Pairs within a client
    are of different people and tell how many come about by chance; as many are taken off those between the clients, and
    what is left counts as people in common, for a Jaccard index. All tasks count alike, whatever `forgetting` is.
    """
    centred = [_centred([task.token for task in tasks if task.token is not None]) for tasks in history.tasks]
    sent = [client for client, rows in enumerate(centred) if len(rows)]
    pairs = {(min(i, j), max(i, j)) for i in receivers for j in sent if i != j and len(centred[i])}
    in_common = {(i, j): _in_common(centred[i], centred[j]) for i, j in pairs}
    result = torch.zeros(len(receivers), len(centred))
    for row, i in enumerate(receivers):
        for j in sent:
            result[row, j] = in_common.get((min(i, j), max(i, j)), 0.0)
    return result


def _in_common(one: Tensor, other: Tensor) -> float:
    """Jaccard index of people whose prototypes are [n, D] and [m, D], with each client's mean off and of length 1."""
    rows = torch.cat([one, other])
    nearest = (rows @ rows.T).fill_diagonal_(-torch.inf).argmax(1)
    place = torch.arange(len(rows))
    paired = nearest[nearest] == place
    between = paired & ((place < len(one)) != (nearest < len(one)))
    both = max(0, int(between.sum()) - int((paired & ~between).sum())) // 2
    return both / (len(rows) - both)


def _centred(tokens: list[Tensor]) -> Tensor:
    """All rows of [n, D] without their mean, of length 1; [0, 0] where there are none."""
    if not tokens:
        return torch.empty(0, 0)
    rows = torch.cat(tokens)
    return torch.nn.functional.normalize(rows - rows.mean(0), dim=1)


def token_kl(history: History, forgetting: float, receivers: Sequence[int]) -> Tensor:
    """Minus the KL divergence of client j's task tokens from client i's newest, tokens read as distributions."""

    def similarity(theirs: Tensor, mine: Tensor) -> float:
        p, q = _distribution(mine), _distribution(theirs)
        return -float((q * (q.log() - p.log())).sum())

    return _over_time(history, forgetting, receivers, similarity)


def token_js(history: History, forgetting: float, receivers: Sequence[int]) -> Tensor:
    """Minus the Jensen-Shannon divergence of task tokens: symmetric, between -ln 2 and 0."""

    def similarity(theirs: Tensor, mine: Tensor) -> float:
        p, q = _distribution(mine), _distribution(theirs)
        middle = ((p + q) / 2).log()
        return -float((p * (p.log() - middle) + q * (q.log() - middle)).sum()) / 2

    return _over_time(history, forgetting, receivers, similarity)


def token_cosine(history: History, forgetting: float, receivers: Sequence[int]) -> Tensor:
    """Cosine of task tokens after the mean over all clients' newest tokens is taken off."""
    newest = [tasks[-1].token for tasks in history.tasks if tasks and tasks[-1].token is not None]
    centre = torch.stack(newest).mean(0) if newest else torch.zeros(())

    def similarity(theirs: Tensor, mine: Tensor) -> float:
        return float(torch.cosine_similarity(theirs - centre, mine - centre, dim=0))

    return _over_time(history, forgetting, receivers, similarity)


def uniform(history: History, forgetting: float, receivers: Sequence[int]) -> Tensor:
    """All clients alike: the control."""
    return torch.zeros(len(receivers), len(history.tasks))


OF_PEOPLE = ("overlap", "prototypes")
"""Measures of people met in common, which are 0 where nothing speaks for a client."""
MEASURES: dict[str, Measure] = {
    "overlap": overlap,
    "prototypes": prototypes,
    "token_kl": token_kl,
    "token_js": token_js,
    "token_cosine": token_cosine,
    "uniform": uniform,
}


def _aged(tasks: list[TaskRecord]) -> list[tuple[int, TaskRecord]]:
    """(age, task) with age 0 for the newest, newest first."""
    return list(enumerate(reversed(tasks)))


def _over_time(
    history: History, forgetting: float, receivers: Sequence[int], similarity: Callable[[Tensor, Tensor], float]
) -> Tensor:
    """Mean over client j's tasks of its similarity to client i's newest token, weighted by forgetting^age."""
    result = torch.zeros(len(receivers), len(history.tasks))
    for row, i in enumerate(receivers):
        mine = history.tasks[i]
        for j, theirs in enumerate(history.tasks):
            if i == j or not mine or not theirs:
                continue
            weights = [forgetting**age for age, _ in _aged(theirs)]
            values = [similarity(task.token, mine[-1].token) for _, task in _aged(theirs)]  # type: ignore[arg-type]
            result[row, j] = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    return result


def _distribution(token: Tensor) -> Tensor:
    """A token as a distribution; representations behind a rectifier are non-negative, others are shifted to be."""
    positive = token.double() - token.double().min().clamp(max=0) + 1e-8
    return positive / positive.sum()
