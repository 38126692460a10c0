"""FedSTIL with trained attention: every client gets all clients' weights and learns how much to take from each.

A client's weights are theta = sum_k a_k G[k] + A: a bank G of all K clients' weights, the attention a of each layer over
them, and an adaptive part A of its own; a and A are trained. In a round
    1. the server sends every client the same bank, unmixed: K times the weights;
    2. a client starts from a_k = alpha / K and A = (1 - alpha) * theta_local, its own column of the bank, that is, from
       theta = alpha * mean_k G[k] + (1 - alpha) * theta_local: FedSTIL's rule with the mean as the base;
    3. it trains a and A on its task and rehearsed exemplars; parameter tying pulls both towards where they started;
    4. it folds them into plain weights, and sends back how far these are from its column of the bank.
In a round before which no bank came, it is the client's own column alone.
So the tail is decomposed in training alone; between rounds it is a plain one, whose weights both ends know to the bit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations
from torch.utils.weak import WeakTensorKeyDictionary

from fedstil_mpi.client.batches import Batch
from fedstil_mpi.client.learner import Learner
from fedstil_mpi.comm.flat import Message, Part, Rows, to_host
from fedstil_mpi.config.fields import FLOAT32, bounded, choice
from fedstil_mpi.methods import fedstil
from fedstil_mpi.methods.base import SAMPLES, Setup, Traffic
from fedstil_mpi.methods.federated import WEIGHTS, FederatedClient, KeepingServer, Tying
from fedstil_mpi.models.adaptive import AttentiveAdaptive
from fedstil_mpi.models.network import owner, part_name, trainable_parameters
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.state_tree import State

BANK = "bank"

_ON_DEVICE = WeakTensorKeyDictionary()
"""The copy on the device of the message that brought a bank: one for all clients of the rank."""


@dataclass(kw_only=True)
class Options:
    alpha: float = bounded(0.8, 0, 1)
    """Share of the bank's mean in what a client starts from: alpha / K is each entry of a at receipt."""
    attention: float | None = bounded(None, 0, 1)
    """Only for reset: persist. Each entry of a at receipt; null: alpha / K."""
    reset: str = choice("contract", "persist")
    """contract (at every receipt A <- (1 - alpha) * theta_local) | persist (the reference code: A is set like this at
    the start alone, and then is the client's own for good, whatever bank comes)."""
    tying: float = bounded(0.0, 0, FLOAT32)
    """Weight lambda of parameter tying, lambda * (|A - A_0|_1 + |a - a_0|_1), with A_0 and a_0 as the round began."""
    token: bool = False
    """Send the task token too, for which nobody has any use, as the reference code does."""

    def __post_init__(self) -> None:
        if self.attention is not None and self.reset == "contract":
            raise InputError(
                f"method.attention = {self.attention}, but reset: contract starts at alpha / K; set method.alpha, or "
                "method.reset=persist"
            )


PRESETS: dict[str, dict[str, Any]] = {
    "best": {},
    "paper": {"method.alpha": 0.9, "method.tying": 1e-5, "train.softmax": "all"},
    "reference_code": {
        key: value for key, value in fedstil.PRESETS["reference_code"].items() if not key.startswith("method.")
    }
    | {"method.attention": 0.0, "method.reset": "persist", "method.tying": 1e-5, "method.token": True},
}


class Client(FederatedClient):
    options: Options
    transient = ("message",)

    def __init__(self, learner: Learner, setup: Setup, options: Options):
        super().__init__(learner, setup, options)
        self.layers = {name: owner(learner.tail, name) for name in setup.layout.names}
        self.message: Tensor | None = None
        """The bank of the round, [N * P], which is the same for all clients of the rank; None: none came before it."""
        self.adaptive_P: Tensor | None = None
        """A at the end of the last round, for reset: persist."""

    @staticmethod
    def traffic(setup: Setup, options: Options) -> Traffic:
        bank = Part(BANK, setup.clients * setup.layout.scalars, shared=True)
        token = (Part("token", setup.representation),) if options.token else ()
        return Traffic((bank,), (Part(WEIGHTS, setup.layout.scalars), SAMPLES, *token))

    @property
    def attention(self) -> float:
        """Each entry of a at receipt."""
        entry = self.options.attention
        return self.options.alpha / len(self.bank_NP) if entry is None else entry

    @property
    def bank(self) -> Tensor:
        """[N * P]; where none came before the round, the client's own column alone."""
        return self.start if self.message is None else self.message

    @property
    def bank_NP(self) -> Tensor:  # noqa: N802
        return self.bank.view(-1, self.setup.layout.scalars)

    def absorb(self, knowledge: Message) -> None:
        """The client's own column is its theta as the server knows it, and for a late joiner all it has."""
        if BANK not in knowledge:
            self.start = self.theta()
            return
        self.message = to_host(knowledge[BANK])
        self.start = self.bank_NP[self.learner.client].clone()
        adaptive_P = self.adaptive_P
        if adaptive_P is None:
            adaptive_P = (1 - len(self.bank_NP) * self.attention) * self.start
        self.load(self.attention * self.bank_NP.sum(0) + adaptive_P)

    def begin(self) -> None:
        """Decompose the weights, without changing them, so that A is what the bank leaves of them."""
        bank_NP = on_device(self.bank, self.learner.device).view_as(self.bank_NP)
        for name, rows in self.setup.layout.unpack_rows(bank_NP).items():
            part = AttentiveAdaptive(self.parameters[name], self.attention)
            part.receive_bank(rows.movedim(0, -1))
            register_parametrization(*self.layers[name], part)

    def context(self) -> Tying | None:
        """To be called where training starts."""
        if not self.options.tying:
            return None
        trained = trainable_parameters(self.learner.tail)
        names = [part_name(name, part) for part in ("original", "0.attention") for name in self.parameters]
        return Tying(self.options.tying, {name: trained[name].detach().clone() for name in names if name in trained})

    @staticmethod
    def penalty(parameters: Mapping[str, Tensor], context: Tying, batch: Batch, scores: Tensor) -> Tensor:
        return context.loss(parameters)

    def end(self) -> None:
        """Fold a and A into plain weights; until then the layers' own parameters are A."""
        _ON_DEVICE.pop(self.bank, None)  # all clients of the rank have begun, and their layers hold it
        if self.options.reset == "persist":
            self.adaptive_P = to_host(self.setup.layout.pack(self.parameters))
        for layer in self.layers.values():
            remove_parametrizations(*layer)
        self.message = None

    def update(self) -> Message:
        return super().update() | ({"token": self.learner.token()} if self.options.token else {})

    def state(self) -> State:
        return {"adaptive": self.adaptive_P}

    def restore(self, state: State) -> None:
        self.adaptive_P = state["adaptive"]


def on_device(message: Tensor, device: torch.device) -> Tensor:
    """The message on the device, copied once however many clients ask for it, while any of them holds it."""
    if message.device == device:
        return message
    if message not in _ON_DEVICE:
        _ON_DEVICE[message] = message.to(device)
    return _ON_DEVICE[message]


class Server(KeepingServer):
    """Sends what it keeps of all clients, and mixes nothing.

    A client that was never seen stands in the bank with the mean of the others: so the bank's mean is theirs, and a
    late joiner starts from it.
    """

    def knowledge(self, online: list[int]) -> Rows:
        bank_KP, seen = self.theta_KP, self.samples_K > 0
        if not seen.all():
            bank_KP = self.theta_KP.clone()
            bank_KP[~seen] = self.theta_KP[seen].mean(0)
        return {BANK: bank_KP.view(-1)}

    def sent(self, online: list[int], knowledge: Rows) -> None:
        """A late joiner holds its column."""
        for client in online:
            if not self.samples_K[client]:
                self.theta_KP[client] = knowledge[BANK].view_as(self.theta_KP)[client]
