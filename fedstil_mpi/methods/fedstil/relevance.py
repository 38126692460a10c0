"""How much client i should take from client j: attention over space (clients) and time (their tasks).

A measure turns what the server has seen, a `History`, into a similarity matrix [K, K]; `attention` turns a similarity
matrix into a relevance matrix whose rows sum to 1. W[i, j] is the weight of contributor j in receiver i's base.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedstil_mpi.util.state_tree import State


@dataclass
class TaskRecord:
    """What one client reported of one of its tasks."""

    people: frozenset[int]
    token: Tensor | None
    """Mean representation [D]; None where the measure in use needs none."""


@dataclass
class History:
    """The tasks of every client that the server has heard of, oldest first."""

    tasks: list[list[TaskRecord]] = field(default_factory=list)
    uploads: list[list[Tensor]] = field(default_factory=list)
    """Every token a client ever sent, one a round; only the reference measure reads it."""

    @classmethod
    def empty(cls, clients: int) -> "History":
        return cls([[] for _ in range(clients)], [[] for _ in range(clients)])

    def note(self, client: int, new_task: bool, people: frozenset[int], token: Tensor | None) -> None:
        """Note one upload: of a new task, or of the one reported before, whose token it renews."""
        tasks = self.tasks[client]
        if new_task:
            tasks.append(TaskRecord(people, token))
        else:
            tasks[-1].token = token
        if token is not None:
            self.uploads[client].append(token)

    @property
    def is_meta(self) -> bool:
        """Whether the tokens are without values, as in a plan."""
        return any(task.token is not None and task.token.is_meta for tasks in self.tasks for task in tasks)

    def seen_clients(self) -> list[int]:
        """The clients that have uploaded."""
        return [client for client, tasks in enumerate(self.tasks) if tasks]

    def state(self) -> State:
        tasks = [[{"people": sorted(task.people), "token": task.token} for task in of] for of in self.tasks]
        return {"tasks": tasks, "uploads": [torch.stack(tokens) if tokens else None for tokens in self.uploads]}

    @classmethod
    def of(cls, state: State) -> "History":
        """The history that gave this state."""
        tasks = [[TaskRecord(frozenset(task["people"]), task["token"]) for task in of] for of in state["tasks"]]
        return cls(tasks, [[] if tokens is None else list(tokens) for tokens in state["uploads"]])


Measure = Callable[[History, float], Tensor]


def overlap(history: History, forgetting: float) -> Tensor:
    """Weighted Jaccard index of the people two clients know; a person last met n tasks ago weighs forgetting^n."""
    weights = []
    for tasks in history.tasks:
        weights.append({person: forgetting**age for age, task in reversed(_aged(tasks)) for person in task.people})
    similarity = torch.zeros(len(weights), len(weights))
    for i, mine in enumerate(weights):
        for j, theirs in enumerate(weights):
            union = mine.keys() | theirs.keys()
            both = sum(min(mine.get(p, 0.0), theirs.get(p, 0.0)) for p in union)
            either = sum(max(mine.get(p, 0.0), theirs.get(p, 0.0)) for p in union)
            similarity[i, j] = both / either if either else 0.0
    return similarity


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
    """Everybody alike: the control."""
    return torch.zeros(len(history.tasks), len(history.tasks))


MEASURES: dict[str, Measure] = {
    "overlap": overlap,
    "token_kl": token_kl,
    "token_js": token_js,
    "token_cosine": token_cosine,
    "uniform": uniform,
}


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
    """softmax(similarity / tau) over the others that were heard of, scaled to leave own_K[i] for receiver i.

    Equal similarities, all zero among them, give the plain average over the others. A receiver that was never heard of
    has no model of its own to weigh; a receiver alone in the world keeps its own. Rows sum to 1; float32 [K, K].
    """
    clients = len(similarity_KK)
    relevance_KK = torch.zeros(clients, clients)
    for i in range(clients):
        others = [j for j in seen_clients if j != i]
        own = own_K[i] if i in seen_clients else 0.0
        if not others:
            relevance_KK[i, i] = 1.0
            continue
        relevance_KK[i, others] = (1 - own) * torch.softmax(similarity_KK[i, others] / tau, 0)
        relevance_KK[i, i] += own
    return relevance_KK


def reference_relevance(uploads: list[list[Tensor]], step: int, decay: float) -> tuple[Tensor, Tensor, Tensor]:
    """The published code's relevance, share and weights (methods specification 5.9), each float64 [n, n].

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
