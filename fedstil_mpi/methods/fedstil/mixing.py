"""What the clients report for the sake of relevance, and the server's mixing matrix made of it."""

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass

import torch
from torch import Tensor

from fedstil_mpi.client.learner import Learner
from fedstil_mpi.comm.flat import Layout, Message, Part, Rows
from fedstil_mpi.comm.wire import CLASSIFIER, places
from fedstil_mpi.methods.aids.prototypes import PEOPLE, pids_of_begun_tasks, prototypes_of_begun_tasks
from fedstil_mpi.methods.fedstil.attention import Weights, attention, reference_code_relevance
from fedstil_mpi.methods.fedstil.history import History
from fedstil_mpi.methods.fedstil.relevance import MEASURES, OF_PEOPLE
from fedstil_mpi.util.state_tree import State

NAMES = (*MEASURES, "reference_code")
"""The measures of relevance there are."""

TASK = Part("header", 1, torch.int64)
"""The number of the task that a token belongs to."""


def parts(measure: str, representation: int) -> tuple[Part, ...]:
    """What a client sends each round for this measure; `representation` is D, the length of a task token."""
    token = Part("token", representation)
    if measure in OF_PEOPLE:
        return (PEOPLE,) if measure == "overlap" else (PEOPLE, Part("prototypes", representation, ragged=True))
    if measure == "reference_code":
        return (token,)
    return (token, TASK) if measure.startswith("token") else ()


def report(measure: str, learner: Learner, representation: int) -> Message:
    """The client's message with these parts, after its training."""
    if measure in OF_PEOPLE:
        met = {PEOPLE.kind: pids_of_begun_tasks(learner)}
        looks = {} if measure == "overlap" else {"prototypes": prototypes_of_begun_tasks(learner, representation)}
        return met | looks
    if measure == "uniform":
        return {}
    token = {"token": learner.token()}
    return token if measure == "reference_code" else token | {TASK.kind: torch.tensor([learner.task])}


def mix_rows(
    base_OP: Tensor, relevance_OK: Tensor, theta_KP: Tensor, known: Sequence[Set[int]], layout: Layout
) -> None:
    """In `base_OP`, mix each row of the classifier over those of its contributors who know the person, if there are any.

    The rows of the others stand where they were in the start model, and would only shrink it.
    """
    base_OCF, theta_KCF = (layout.unpack_rows(rows)[CLASSIFIER] for rows in (base_OP, theta_KP))
    known_KC = torch.zeros(theta_KCF.shape[:2])
    for client, people in enumerate(known):
        known_KC[client, places(sorted(people), known_KC[client])] = 1
    share_OC = relevance_OK @ known_KC
    mixed_OCF = torch.einsum("ij,jc,jcf->icf", relevance_OK, known_KC, theta_KCF) / share_OC[..., None]
    base_OCF.copy_(torch.where(share_OC[..., None] > 0, mixed_OCF, base_OCF))


@dataclass
class Attention:
    """The server's side: keeps the reports, and computes how much each client takes from each other one."""

    clients: int
    measure: str
    tau: float
    """Temperature of the softmax over the other clients."""
    forgetting: float
    """Factor by which a task counts less for each newer task of the same client."""
    self_weight: float | None
    """A receiver's own weight in the attention; None: 1/K."""
    mean_share: float
    """Share of the seen clients' plain mean beside the attention."""
    step: int
    """The reference_code measure's stride in a client's tokens."""

    def __post_init__(self) -> None:
        self.history = History.empty(self.clients)
        self._newest_task: dict[int, int] = {}
        self._reported = {part.kind for part in parts(self.measure, 0)}

    def note(self, online: list[int], updates: Rows) -> None:
        """Take in the reports of the online clients, rows in the order of `online`."""
        for row, client in enumerate(online):
            pids = updates[PEOPLE.kind][row][:, 0].tolist() if PEOPLE.kind in self._reported else []
            begins = bool(pids) or not self.history.tasks[client]
            token = updates["token"][row].clone() if "token" in self._reported else None
            if "prototypes" in self._reported:  # they come once
                token = updates["prototypes"][row].clone() if begins else self.history.tasks[client][-1].token
            if TASK.kind in self._reported:
                task = int(updates[TASK.kind][row])
                begins = task != self._newest_task.get(client)
                self._newest_task[client] = task
            self.history.note(client, begins, frozenset(pids), token)
            if self.measure == "reference_code" and token is not None:
                self.history.uploads[client].append(token)

    def state(self) -> State:
        newest = {str(client): task for client, task in self._newest_task.items()}
        return {"history": self.history.state(), "newest task": newest}

    def restore(self, state: State) -> None:
        self.history = History.of(state["history"])
        self._newest_task = {int(client): task for client, task in state["newest task"].items()}

    def weights(self, receivers: Sequence[int]) -> Weights:
        """How much each of the receivers takes from each contributor."""
        seen_clients = self.history.seen_clients()
        if self.measure == "reference_code":
            weights = self._reference_code_weights(seen_clients, receivers)
        else:
            scores_OK = MEASURES[self.measure](self.history, self.forgetting, receivers) / self.tau
            mean_score = -math.inf
            if self.measure in OF_PEOPLE:  # log(exp(score) - 1): nothing in common, -inf, says nothing for a client
                scores_OK, mean_score = scores_OK + torch.log(-torch.expm1(-scores_OK)), 0.0
            own = 1 / self.clients if self.self_weight is None else self.self_weight
            weights = attention(scores_OK, mean_score, own, seen_clients, receivers)
        return weights.blended(self.mean_share) if seen_clients else weights

    def rows(self, receivers: Sequence[int]) -> Tensor:
        """Those of the relevance matrix, float32 [O, K]: what `weights` says in one piece; they sum to 1."""
        return self.weights(receivers).rows(self.history.seen_clients())

    def _reference_code_weights(self, seen_clients: list[int], receivers: Sequence[int]) -> Weights:
        """The reference code's weights among the seen clients; their plain mean for one that was not seen."""
        nothing_OK = torch.full((len(receivers), self.clients), -torch.inf)
        mean_O, beside_OK = attention(nothing_OK, 0.0, 0.0, seen_clients, receivers)
        uploads = [self.history.uploads[client] for client in seen_clients]
        among = reference_code_relevance(uploads, self.step, self.forgetting)[2].float()
        for row, client in enumerate(receivers):
            if client in seen_clients:
                mean_O[row] = 0.0
                beside_OK[row, seen_clients] = among[seen_clients.index(client)]
        return Weights(mean_O, beside_OK)
