"""How much client i can learn from client j: measures of likeness over space (clients) and time (their tasks).

A measure turns what the server has seen, a `History`, into a similarity matrix [K, K].
"""

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from fedstil_mpi.methods.fedstil.history import History, TaskRecord

PAIRS = 4_000_000
"""How many pairs of clients are counted at once."""

Measure = Callable[[History, float], Tensor]


def overlap(history: History, forgetting: float) -> Tensor:
    """Weighted Jaccard index of the people two clients know; a person last met n tasks ago weighs forgetting^n.

    Sum of minima / sum of maxima over all people that either knows; only those that both know add to the first.
    """
    weights = [
        {person: forgetting**age for age, task in reversed(_aged(tasks)) for person in task.people}
        for tasks in history.tasks
    ]
    total_K = np.array([sum(of_client.values()) for of_client in weights], float)
    both_KK = _shared(weights)
    np.fill_diagonal(both_KK, total_K)
    either_KK = total_K[:, None] + total_K - both_KK
    return torch.from_numpy(np.divide(both_KK, either_KK, out=np.zeros_like(both_KK), where=either_KK > 0)).float()


def _shared(weights: list[dict[int, float]]) -> np.ndarray:
    """The smaller of two clients' weights, summed over the people that both know: float64 [K, K].

    weights: for each client, person -> weight. Pairs are counted person by person, for most clients share nobody; the people with
    equally many knowers together.
    """
    clients = len(weights)
    pids = np.array([person for of_client in weights for person in of_client], int)
    knowers = np.repeat(np.arange(clients), [len(of_client) for of_client in weights])
    values = np.array([weight for of_client in weights for weight in of_client.values()])
    by_person = np.argsort(pids, kind="stable")
    knowers, values = knowers[by_person], values[by_person]
    counts = np.unique(pids, return_counts=True)[1]
    starts = np.cumsum(counts) - counts
    both = np.zeros(clients**2)
    for count in np.unique(counts[counts > 1]):
        places = starts[counts == count][:, None] + np.arange(count)
        for part in np.array_split(places, math.ceil(len(places) * count**2 / PAIRS)):
            pairs = knowers[part][:, :, None] * clients + knowers[part][:, None]
            minima = np.minimum(values[part][:, :, None], values[part][:, None])
            both += np.bincount(pairs.ravel(), minima.ravel(), clients**2)
    return both.reshape(clients, clients)


def prototypes(history: History, forgetting: float) -> Tensor:
    """The overlap as far as it shows in identity prototypes, for cameras whose ids mean nothing to each other.

    A camera shows everybody in its own light and from its own side, so each client's mean is taken off first. Two
    prototypes are a pair where each is, by cosine, the nearest of all that either client has sent. Pairs within a client
    are of different people and tell how many come about by chance; as many are taken off those between the clients, and
    what is left counts as people in common, for a Jaccard index. All tasks count alike, whatever `forgetting` is.
    """
    clients = len(history.tasks)
    result = torch.zeros(clients, clients)
    centred = [_centred([task.token for task in tasks if task.token is not None]) for tasks in history.tasks]
    for i, j in combinations([client for client, rows in enumerate(centred) if len(rows)], 2):
        rows = torch.cat([centred[i], centred[j]])
        nearest = (rows @ rows.T).fill_diagonal_(-torch.inf).argmax(1)
        place = torch.arange(len(rows))
        paired = nearest[nearest] == place
        between = paired & ((place < len(centred[i])) != (nearest < len(centred[i])))
        both = max(0, int(between.sum()) - int((paired & ~between).sum())) // 2
        result[i, j] = result[j, i] = both / (len(rows) - both)
    return result


def _centred(tokens: list[Tensor]) -> Tensor:
    """All rows of [n, D] without their mean, of length 1; [0, 0] where there are none."""
    if not tokens:
        return torch.empty(0, 0)
    rows = torch.cat(tokens)
    return torch.nn.functional.normalize(rows - rows.mean(0), dim=1)


def token_kl(history: History, forgetting: float) -> Tensor:
    """Minus the KL divergence of client j's task tokens from client i's newest, tokens read as distributions."""

    def similarity(theirs: Tensor, mine: Tensor) -> float:
        p, q = _distribution(mine), _distribution(theirs)
        return -float((q * (q.log() - p.log())).sum())

    return _over_time(history, forgetting, similarity)


def token_js(history: History, forgetting: float) -> Tensor:
    """Minus the Jensen-Shannon divergence of task tokens: symmetric, between -ln 2 and 0."""

    def similarity(theirs: Tensor, mine: Tensor) -> float:
        p, q = _distribution(mine), _distribution(theirs)
        middle = ((p + q) / 2).log()
        return -float((p * (p.log() - middle) + q * (q.log() - middle)).sum()) / 2

    return _over_time(history, forgetting, similarity)


def token_cosine(history: History, forgetting: float) -> Tensor:
    """Cosine of task tokens after the mean over all clients' newest tokens is taken off."""
    newest = [tasks[-1].token for tasks in history.tasks if tasks and tasks[-1].token is not None]
    centre = torch.stack(newest).mean(0) if newest else torch.zeros(())

    def similarity(theirs: Tensor, mine: Tensor) -> float:
        return float(torch.cosine_similarity(theirs - centre, mine - centre, dim=0))

    return _over_time(history, forgetting, similarity)


def uniform(history: History, forgetting: float) -> Tensor:
    """All clients alike: the control."""
    return torch.zeros(len(history.tasks), len(history.tasks))


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


def _over_time(history: History, forgetting: float, similarity: Callable[[Tensor, Tensor], float]) -> Tensor:
    """Mean over client j's tasks of its similarity to client i's newest token, weighted by forgetting^age."""
    clients = len(history.tasks)
    result = torch.zeros(clients, clients)
    for i, mine in enumerate(history.tasks):
        for j, theirs in enumerate(history.tasks):
            if i == j or not mine or not theirs:
                continue
            weights = [forgetting**age for age, _ in _aged(theirs)]
            values = [similarity(task.token, mine[-1].token) for _, task in _aged(theirs)]  # type: ignore[arg-type]
            result[i, j] = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    return result


def _distribution(token: Tensor) -> Tensor:
    """A token as a distribution; representations behind a rectifier are non-negative, others are shifted to be."""
    positive = token.double() - token.double().min().clamp(max=0) + 1e-8
    return positive / positive.sum()
