"""FedWeIT (Yoon, Jeong, Lee, Yang, Hwang: Federated Continual Learning with Weighted Inter-client Transfer, ICML 2021).

Every task of a client has weights theta = mask * B + A + sum_k a_k * G_k: a base B shared by all tasks and clients, and
of the task's own a mask over output channels, sparse adaptive weights A, and attention a to adaptive weights G_k that
others learned. As in the paper:
    1. the client's base starts a round from the server's and is trained with the rest; G is constant;
    2. mask, A and a persist over the rounds of a task and are reset when the next one begins, with a new bank G:
       the newest A of other clients' finished tasks, which the server sends once per task;
    3. the loss adds sparsity * (|A|_1 + |mask|_1) + drift * sum over past tasks of |mask_past * (B - B_past)|^2;
    4. outside training (evaluation, communication) A and the mask are pruned: what is small is 0;
    5. the masked base goes up every round and is averaged; A goes up sparsely, when its task is finished.
Choices where the paper leaves room. Past tasks' A stay as they were, as in the authors' code: to let them follow the base
would take a trained copy with optimiser moments per task. The masked base travels as mask * (B - B received): what a
mask closes does not move the base, while a mean of mask * B itself would shrink the base by the mask every round.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fedstil_mpi.client.batches import Batch
from fedstil_mpi.client.learner import Learner
from fedstil_mpi.comm.flat import Message, Part, Rows, to_host
from fedstil_mpi.config.fields import FLOAT32, bounded, choice
from fedstil_mpi.methods import base, single
from fedstil_mpi.methods.base import SAMPLES, Setup, Traffic
from fedstil_mpi.methods.federated import WEIGHTS, FederatedClient, weighted_mean
from fedstil_mpi.methods.fedweit.bank import ADAPTIVE, Bank, ReferenceCodeBank
from fedstil_mpi.methods.fedweit.past import Past
from fedstil_mpi.methods.quadratic import Quadratic, QuadraticSum, quadratic
from fedstil_mpi.models.masked import Masked, decompose
from fedstil_mpi.models.network import Tail, owner, part_name
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.state_tree import State


@dataclass(kw_only=True)
class Options:
    mode: str = choice("paper", "reference_code")
    """paper (as above) | reference_code (as FedSTIL's: everything but the mask is reset each round)."""
    sparsity: float = bounded(5e-6, 0, FLOAT32)
    """Weight lambda_1 of |A|_1 + |mask|_1."""
    threshold: float | None = bounded(None, 0, FLOAT32)
    """Adaptive weights not above it are pruned; null: the value of sparsity, as in the paper."""
    mask_sparsity: float = bounded(0.0, 0, FLOAT32)
    """Masks not above it are pruned: 0 to 1 in mode paper."""
    drift: float = bounded(1e-3, 0, FLOAT32)
    """Weight lambda_2 of the drift from the bases of past tasks; without effect in mode reference_code, as there."""
    knowledge: int = bounded(5, 0, 10**6)
    """At most so many other clients' adaptive weights in a bank; exactly so many in mode reference_code."""

    def __post_init__(self) -> None:
        if self.is_reference_code and self.knowledge < 1:
            raise InputError(f"method.knowledge = {self.knowledge}; expected at least 1")

    @property
    def is_reference_code(self) -> bool:
        return self.mode == "reference_code"


PRESETS: dict[str, dict[str, Any]] = {
    "best": {"method.threshold": 3e-3},
    # The authors' weights; their code halves the squared drift.
    "paper": single.PRESETS["paper"] | {"method.sparsity": 1e-3, "method.drift": 50.0},
    "reference_code": single.PRESETS["reference_code"]
    | {
        "method.mode": "reference_code",
        "train.rate": "constant",  # the reference code rebuilds its optimiser each epoch, at the first rate
    },
}


class Sparsity(NamedTuple):
    weight: float
    layers: tuple[str, ...]
    """The names of the decomposed weights."""
    kind: type[Masked]
    drift: Quadratic | None
    """The penalty on the base's drift; None while no task has ended."""


class Client(FederatedClient):
    task_aware = True
    options: Options
    kind: type[Masked] = Masked

    @staticmethod
    def traffic(setup: Setup, options: Options) -> Traffic:
        scalars = setup.layout.scalars
        shared, own = Part(WEIGHTS, scalars, shared=True), Part(WEIGHTS, scalars)
        if options.is_reference_code:
            bank = Part("knowledge", options.knowledge * scalars, shared=True)
            return Traffic((shared, bank), (own, Part(ADAPTIVE, scalars), SAMPLES))
        adaptive = Part(ADAPTIVE, scalars, ragged=True, codec="sparse")
        return Traffic((shared, adaptive), (own, adaptive, SAMPLES))

    def __init__(self, learner: Learner, setup: Setup, options: Options):
        super().__init__(learner, setup, options)
        self.parts: dict[str, Masked] = {}
        """The decomposition of each layer, whose base is under the same name in `parameters`."""
        self.bank = torch.empty(0, setup.layout.scalars)
        """What has arrived for the next task, [n, P]."""
        self.finished = self.bank
        """The adaptive weights of the task that ended last, which the server does not have yet, [1, P]; none: [0, P]."""
        self.past = Past(learner.tail, setup.layout)
        self.drift = QuadraticSum()
        """The base's drift from where finished tasks had it."""

    def absorb(self, knowledge: Message) -> None:
        """The start model comes under the names of plain layers, so they become others only here."""
        if not self.parts:
            self.decompose()
        super().absorb(knowledge)
        if ADAPTIVE in knowledge and len(knowledge[ADAPTIVE]):
            self.bank = knowledge[ADAPTIVE]

    def decompose(self) -> None:
        threshold = self.options.sparsity if self.options.threshold is None else self.options.threshold
        for name in self.parameters:
            layer, weight = owner(self.learner.tail, name)
            self.parts[name] = decompose(layer, self.kind, threshold, self.options.mask_sparsity, weight)

    def begin(self) -> None:
        if self.learner.task_is_new:
            self.restart()

    def restart(self) -> None:
        """Reset the task's own parts, with the bank that has arrived."""
        for name, rows in self.setup.layout.unpack_rows(self.bank).items():
            self.parts[name].restart(self.parameters[name], rows)
        self.bank = torch.empty(0, self.setup.layout.scalars)

    def context(self) -> Sparsity:
        return Sparsity(self.options.sparsity, tuple(self.parts), self.kind, self.drift.weighted(self.options.drift))

    @staticmethod
    def penalty(parameters: Mapping[str, Tensor], context: Sparsity, batch: Batch, scores: Tensor) -> Tensor:
        sizes = [
            context.kind.size(*(parameters[part_name(layer, part)] for part in ("0.adaptive", "0.mask")))
            for layer in context.layers
        ]
        penalty = context.weight * torch.stack(sizes).sum()
        return penalty if context.drift is None else penalty + quadratic(parameters, context.drift)

    @torch.no_grad()
    def end(self) -> None:
        if not self.learner.task_ends:
            return
        gates = {name: part.gate(prune=True) for name, part in self.parts.items()}
        own = {name: part.own(prune=True) for name, part in self.parts.items()}
        self.past.keep(self.learner.task, self.learner.tail, gates, own)
        self.finished = self.adaptive(prune=True)[None]
        if self.options.drift:
            bases = {part_name(name, "original"): shared for name, shared in self.parameters.items()}
            self.drift.add(bases, {part_name(name, "original"): gate**2 for name, gate in gates.items()})

    @torch.no_grad()
    def update(self) -> Message:
        moved = self.theta() - self.start
        for name, change in self.setup.layout.unpack(moved).items():
            change *= to_host(self.parts[name].gate(prune=True))
        samples = torch.tensor([self.learner.untold.samples])
        return {WEIGHTS: moved, ADAPTIVE: self.finished, "samples": samples}

    def sent(self, update: Message) -> None:
        """The base stays where training left it, until the server's arrives."""
        self.finished = torch.empty(0, self.setup.layout.scalars)

    def adaptive(self, prune: bool) -> Tensor:
        """The task's adaptive weights, float32 [P] on the CPU."""
        return to_host(self.setup.layout.pack({name: part.added(prune) for name, part in self.parts.items()}))

    def tail_for(self, task: int) -> Tail:
        """A finished task's own parts on the current base; for others the newest model."""
        return self.past.tail(task, self.parameters) if task in self.past.tasks else self.learner.tail

    def state(self) -> State:
        banks = [len(part.knowledge) for part in self.parts.values()]  # all of them alike
        return {
            "bank": banks[0] if banks else None,
            "arrived": self.bank,
            "finished": self.finished,
            "past": self.past.state(),
            "drift": self.drift.state(),
        }

    def restore(self, state: State) -> None:
        if state["bank"] is not None:
            self.decompose()
            self.bank = self.bank.new_zeros(state["bank"], self.setup.layout.scalars)
            self.restart()  # so that there is room for the bank in the tail
        self.bank, self.finished = state["arrived"], state["finished"]
        self.past.restore(state["past"], self.learner.device)
        self.drift.restore(state["drift"], self.learner.device)


class Server(base.Server):
    def __init__(self, setup: Setup, options: Options):
        super().__init__(setup, options)
        self.theta_P: Tensor = setup.start.clone()
        size = options.knowledge, setup.layout.scalars
        self.bank = ReferenceCodeBank(*size, setup.seed) if options.is_reference_code else Bank(*size)

    def knowledge(self, online: list[int]) -> Rows:
        return {WEIGHTS: self.theta_P} | self.bank.knowledge(online)

    def collect(self, online: list[int], updates: Rows) -> None:
        self.theta_P = self.theta_P + weighted_mean(updates[WEIGHTS], updates["samples"][:, 0])
        self.bank.collect(online, updates[ADAPTIVE])

    def state(self) -> State:
        return {"theta": self.theta_P, "bank": self.bank.state()}

    def restore(self, state: State, theta_of: Callable[[int], Tensor]) -> None:
        self.theta_P = state["theta"]
        self.bank.restore(state["bank"])
