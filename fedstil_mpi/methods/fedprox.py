"""FedProx (Li et al., MLSys 2020): FedAvg whose clients stay near the global model, mu/2 * |phi - phi_global|^2."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fedstil_mpi.client.batches import Batch
from fedstil_mpi.comm.flat import Message
from fedstil_mpi.config.fields import FLOAT32, bounded, choice
from fedstil_mpi.methods import fedavg
from fedstil_mpi.methods.fedavg import Server
from fedstil_mpi.methods.federated import FederatedClient

__all__ = ["PRESETS", "Client", "Options", "Server"]


@dataclass(kw_only=True)
class Options(fedavg.Options):
    mu: float = bounded(0.01, 0, FLOAT32)
    """Weight of the proximal term mu/2 * |phi - anchor|^2."""
    anchor: str = choice("global", "previous")
    """global (the model received) | previous (the client's own weights before it received one, as the reference code)."""


PRESETS: dict[str, dict[str, Any]] = {
    "best": {},
    "paper": fedavg.PRESETS["paper"],
    "reference_code": fedavg.PRESETS["reference_code"]
    | {"method.anchor": "previous", "method.mu": 2e-5},  # the reference code: 1e-5, without the half
}


class Proximity(NamedTuple):
    mu: float
    anchors: Mapping[str, Tensor]
    """Parameter -> where it is pulled to."""


def to_start(side: FederatedClient, weight: float) -> Proximity | None:
    """To the weights that the client received last; None without a weight."""
    anchors = side.on_device(side.start)
    return Proximity(weight, anchors) if weight else None


class Client(fedavg.Client):
    options: Options
    transient = ("anchors",)
    anchors: Mapping[str, Tensor] | None = None
    """Where the round pulls the parameters to."""

    def absorb(self, knowledge: Message) -> None:
        # A late joiner has no weights of its own, and what it holds of the start model depends on its rank.
        previous = self.theta() if self.options.anchor == "previous" and self.learner.draws else None
        super().absorb(knowledge)
        self.pull_to(self.start if previous is None else previous)

    def pull_to(self, theta_P: Tensor) -> None:
        self.anchors = self.on_device(theta_P)

    def begin(self) -> None:
        """Where no exchange comes before the round, only the anchor start stays where it was."""
        if self.anchors is None:
            self.pull_to(self.theta() if self.options.anchor == "previous" else self.start)

    def end(self) -> None:
        self.anchors = None

    def context(self) -> Proximity | None:
        assert self.anchors is not None
        return Proximity(self.options.mu, self.anchors) if self.options.mu else None

    @staticmethod
    def penalty(parameters: Mapping[str, Tensor], context: Proximity, batch: Batch, scores: Tensor) -> Tensor:
        distances = [F.mse_loss(parameters[name], anchor, reduction="sum") for name, anchor in context.anchors.items()]
        return context.mu / 2 * torch.stack(distances).sum()
