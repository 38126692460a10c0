"""FedSTIL's client as the reference code has it, for comparison: theta = alpha * B + A as trained layers."""

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.utils.parametrize import is_parametrized

from fedstil_mpi.client.batches import Batch
from fedstil_mpi.client.learner import Learner
from fedstil_mpi.comm.flat import Message, to_host
from fedstil_mpi.methods.base import Setup
from fedstil_mpi.methods.federated import FederatedClient
from fedstil_mpi.methods.fedstil.method import Client, Options
from fedstil_mpi.models.adaptive import decompose, parts, receive_base, tying
from fedstil_mpi.models.network import owner, part_name
from fedstil_mpi.util.state_tree import State


class TrainedTying(NamedTuple):
    weight: float
    alphas: Mapping[str, Tensor]
    """Name of a decomposed weight -> its alpha."""


class ReferenceCodeClient(Client):
    """Every arriving base resets alpha, A and their tying anchors; the anchors are trained too (defects A2, A5)."""

    def __init__(self, learner: Learner, setup: Setup, options: Options):
        names = setup.layout.names
        self.layers = {name: owner(learner.tail, name) for name in names}
        super().__init__(learner, setup, options)

    def theta(self) -> Tensor:
        weights = {name: cast(Tensor, getattr(*layer)) for name, layer in self.layers.items()}
        return to_host(self.setup.layout.pack(weights))

    def load(self, theta_P: Tensor) -> Tensor:
        """alpha * B + A is B but for its rounding, to the last bit for an alpha of a half and more."""
        for name, base in self.setup.layout.unpack(theta_P).items():
            layer, weight = self.layers[name]
            receive_base(layer, base, weight)
        return self.theta()

    def absorb(self, knowledge: Message) -> None:
        """The start model is the first base; it comes under the names of plain layers, so they become others here."""
        if not self.is_decomposed:
            self.decompose()
        FederatedClient.absorb(self, knowledge)

    @property
    def is_decomposed(self) -> bool:
        return any(is_parametrized(*layer) for layer in self.layers.values())

    def decompose(self) -> None:
        for layer, weight in self.layers.values():
            decompose(layer, self.options.alpha, weight, trained_anchor=True)

    def context(self) -> TrainedTying | None:
        if not self.options.tying:
            return None
        return TrainedTying(self.options.tying, {name: parts(*layer)[0].alpha for name, layer in self.layers.items()})

    @staticmethod
    def penalty(parameters: Mapping[str, Tensor], context: TrainedTying, batch: Batch, scores: Tensor) -> Tensor:
        trained = "original", "0.alpha_anchor", "0.anchor"
        distances = [
            tying(alpha, *(parameters[part_name(name, part)] for part in trained))
            for name, alpha in context.alphas.items()
        ]
        return context.weight * torch.stack(distances).sum()

    def state(self) -> State:
        return {"decomposed": self.is_decomposed}

    def restore(self, state: State) -> None:
        if state["decomposed"]:
            self.decompose()
