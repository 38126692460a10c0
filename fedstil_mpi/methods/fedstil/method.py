"""FedSTIL: spatial-temporal federated learning for lifelong person re-identification.

Every client's weights are theta = alpha * B + A: a base B distilled for this client by the server, and an adaptive part
A of its own. In a round
    1. the server mixes the clients' weights by relevance over space and time: base_OP = relevance_OK @ theta_KP, a row
       for each of the O online clients (or, with a server memory, what it remembers of theta_KP);
    2. a client starts from theta <- alpha * B + (1 - alpha) * theta, that is, A = (1 - alpha) * theta_local: what it
       learned survives, and still contracts towards the base;
    3. it trains theta on its task and rehearsed exemplars; parameter tying pulls theta towards where it started;
    4. it sends back how far it moved, and what shows the server which clients it resembles (people met, or a task token).
Between two exchanges alpha and B are constants and d theta / d A = 1, so theta itself is trained: no second copy.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedstil_mpi.client.batches import Batch
from fedstil_mpi.comm.flat import Message, Part, Rows
from fedstil_mpi.config.fields import FLOAT32, bounded, choice
from fedstil_mpi.methods import base, single
from fedstil_mpi.methods.base import SAMPLES, Setup, Traffic
from fedstil_mpi.methods.client_matrix import ClientMatrix
from fedstil_mpi.methods.federated import WEIGHTS, FederatedClient, Tying
from fedstil_mpi.methods.fedstil import mixing
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.state_tree import State


@dataclass(kw_only=True)
class Options:
    alpha: float = bounded(0.8, 0, 1)
    """Share of the base in what a client starts from; 1: local adaptation is thrown away, as in the reference code."""
    tying: float = bounded(0.0, 0, FLOAT32)
    """Weight lambda of parameter tying, lambda * |theta - theta at receipt|_1."""
    relevance: str = choice(*mixing.NAMES, "none")
    """overlap (of the people two clients know) | prototypes (the same, found by matching what people look like; ids need mean
    nothing to other clients) | token_kl | token_js | token_cosine | uniform | reference_code | none (the
    server mixes nothing: no weights travel after first contact, and every client learns alone)."""
    forgetting: float = bounded(1.0, 0, 1)
    """Factor lambda_f by which a task counts less for each newer task of the same client."""
    tau: float = bounded(0.2, 1e-3, FLOAT32)
    """Temperature of the attention over the other clients; with overlap over those that have met the same people, and, as
    one candidate of no overlap, the plain mean of all."""
    self_weight: float | None = bounded(None, 0, 1)
    """The receiver's own weight in the attention, null: 1/K."""
    mean_share: float = bounded(0.0, 0, 1)
    """Share of the plain mean of all clients in every base, beside the attention. It keeps groups of clients that mix with
    each other from drifting apart, which costs most where strangers are searched."""
    server_memory: float = bounded(0.0, 0, 1)
    """Share of the past in what the server mixes: of every client the running mean m <- s * m + (1 - s) * theta over its
    rounds; 0: its newest weights alone."""
    step: int = bounded(10, 1, 10**6)
    """Only for relevance: reference_code. Stride in a client's uploaded tokens."""
    decomposition: str = choice("folded", "reference_code")
    """folded (theta itself is trained) | reference_code (alpha * B + A as trained layers, whose tying anchor follows A)."""

    def __post_init__(self) -> None:
        if self.relevance == "reference_code" and not self.forgetting:
            raise InputError(
                "method.forgetting = 0; expected more with method.relevance=reference_code, which divides by it"
            )

    @property
    def mixes(self) -> bool:
        """Whether weights travel."""
        return self.relevance != "none"

    @property
    def step_to_base(self) -> float:
        """How far a client moves to a new base; all the way in the reference code, which resets A whatever alpha is."""
        return 1.0 if self.decomposition == "reference_code" else self.alpha


PRESETS: dict[str, dict[str, Any]] = {
    "best": {"method.mean_share": 0.5, "prototypes.exchange": True, "train.contrast": 0.3},
    "paper": {
        "method.alpha": 0.9,
        "method.tying": 1e-4,
        "method.relevance": "token_kl",
        "method.forgetting": 0.8,
        "method.tau": 1.0,
        "train.softmax": "all",
    },
    "reference_code": single.REFERENCE_CODE
    | {
        "method.decomposition": "reference_code",
        "method.alpha": 0.9,
        "method.tying": 1e-4,
        "method.relevance": "reference_code",
        "method.forgetting": 0.8,
        "memory.share": None,
        "memory.herding": "repeat",
        "memory.labels": "collide",
        "train.rate": "constant",  # the reference code rebuilds its optimiser each epoch, at the first rate
        # Not as there: tokens and exemplars are of the images as they are, not of the last epoch's augmented set (docs/configs.md).
    },
}


def interpolate(theta: Tensor, base: Tensor, alpha: float) -> Tensor:
    """alpha * base + (1 - alpha) * theta: the same on both ends of a link, and the base itself for alpha 1, to the bit."""
    return (theta - base).mul_(1 - alpha).add_(base)


class Client(FederatedClient):
    options: Options

    @staticmethod
    def traffic(setup: Setup, options: Options) -> Traffic:
        if not options.mixes:
            return Traffic()
        weights = Part(WEIGHTS, setup.layout.scalars, columns=1)
        reports = mixing.parts(options.relevance, setup.representation)
        return Traffic((weights,), (weights, SAMPLES, *reports))

    def received(self, base_P: Tensor) -> Tensor:
        if self.learner.draws == 0:  # a late joiner has adapted nothing yet
            return base_P.clone()  # a row of all clients' bases, which need not be kept for it
        return interpolate(self.theta(), base_P, self.options.step_to_base)

    def begin(self) -> None:
        if not self.options.mixes:
            self.start = self.theta()  # a receipt of nothing: however seldom others exchange, this changes nothing

    def context(self) -> Any:
        if not self.options.tying:
            return None
        return Tying(self.options.tying, self.on_device(self.start))

    @staticmethod
    def penalty(parameters: Mapping[str, Tensor], context: Any, batch: Batch, scores: Tensor) -> Tensor:
        return context.loss(parameters)

    def update(self) -> Message:
        if not self.options.mixes:
            return {}
        return super().update() | mixing.report(self.options.relevance, self.learner, self.setup.representation)

    def sent(self, update: Message) -> None:
        if self.options.mixes:
            super().sent(update)


class Server(base.Server):
    in_parts = True
    columns = ("theta", "mixed", "sum")
    options: Options

    @staticmethod
    def by_columns(options: Options) -> bool:
        return True

    def __init__(self, setup: Setup, options: Options):
        super().__init__(setup, options)
        self.theta = ClientMatrix(setup.clients if options.mixes else 0, setup.start, setup.rows())
        """Each client's weights as both ends know them; no rows where none travel."""
        self.mixed = ClientMatrix(setup.clients, setup.start, setup.rows()) if options.server_memory else self.theta
        """What is mixed of each client that was seen."""
        self.attention = mixing.Attention(
            setup.clients,
            options.relevance,
            options.tau,
            options.forgetting,
            options.self_weight,
            options.mean_share,
            options.step,
        )

    def knowledge(self, online: list[int]) -> Rows:
        if not self.options.mixes:
            return {}
        weights = self.attention.weights(online)
        self.relevance_OK = weights.rows(self.attention.history.seen_clients())
        into = None if self.known is not None else self.setup.file_rows(len(online))
        base_OP = self.mixed.mixed(*weights, into=into)
        if isinstance(base_OP, Tensor) and self.known is not None:
            mixing.mix_rows(
                base_OP, self.relevance_OK, self.mixed.of(range(self.setup.clients)), self.known, self.setup.layout
            )
        return {WEIGHTS: base_OP}

    def sent(self, online: list[int], knowledge: Rows) -> None:
        tasks, step = self.attention.history.tasks, self.options.step_to_base
        for client, base_P in zip(online, knowledge.get(WEIGHTS, ()), strict=False):
            alpha = step if tasks[client] else 1.0
            self.theta[client] = interpolate(self.theta[client], base_P, alpha)

    def collect(self, online: list[int], updates: Rows) -> None:
        if not self.options.mixes:
            return
        for client, delta_P in zip(online, updates[WEIGHTS], strict=True):
            self.theta[client] = theta_P = self.theta[client] + delta_P
            if self.options.server_memory:
                past = self.options.server_memory if self.attention.history.tasks[client] else 0.0
                self.mixed[client] = torch.lerp(self.mixed[client], theta_P, 1 - past)
        self.mixed.count(online)
        self.attention.note(online, updates)

    def state(self) -> State:
        there = list(self.theta.rows)
        state: State = {"attention": self.attention.state(), "there": there, "sum": self.mixed.sum_P}
        if self.options.decomposition == "reference_code":  # a client keeps the parts of its weights
            state["theta"] = self.theta.of(there)
        if self.options.server_memory:
            state["mixed"] = self.mixed.of(sorted(self.mixed.rows))
        return state

    def restore(self, state: State, theta_of: Callable[[int], Tensor]) -> None:
        self.attention.restore(state["attention"])
        seen = self.attention.history.seen_clients()
        for place, client in enumerate(state["there"]):
            self.theta[client] = state["theta"][place] if "theta" in state else theta_of(client)
        for client, row_P in zip(seen, state.get("mixed", ()), strict=False):
            self.mixed[client] = row_P
        self.mixed.counted, self.mixed.sum_P = set(seen), state["sum"]
