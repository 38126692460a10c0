"""A client that learns alone and is held, parameter by parameter, to where it stood: what EWC and MAS share."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fedstil_mpi.client.learner import Learner
from fedstil_mpi.client.local_training import Batch
from fedstil_mpi.methods.base import Client, Setup
from fedstil_mpi.models.network import trainable_parameters
from fedstil_mpi.util.state_tree import State


class Anchors(NamedTuple):
    """What holds parameters, by name; each tensor on its parameter's device."""

    weight: float
    """Of the penalty."""
    centres: Mapping[str, Tensor]
    importances: Mapping[str, Tensor]
    """Each broadcasts to its parameter's shape."""


def quadratic(parameters: Mapping[str, Tensor], held: Anchors) -> Tensor:
    """weight * sum of importance * (parameter - centre)^2: a scalar."""
    terms = [
        (importance * F.mse_loss(parameters[name], held.centres[name], reduction="none")).sum()
        for name, importance in held.importances.items()
    ]
    return held.weight * torch.stack(terms).sum()


class AnchoredClient(Client):
    """Penalty lambda * sum Omega (phi - phi*)^2 over all parameters that are trained.

    phi* are the parameters at the end of the newest finished task, Omega is the sum of the importances for all finished
    tasks. With importance "round", both are made anew after every round.
    """

    passes_more = True

    def __init__(self, learner: Learner, setup: Setup, options: Any):
        super().__init__(learner, setup, options)
        self.parameters = trainable_parameters(learner.tail)
        self.anchors: list[Tensor] = []
        """phi*, like the parameters."""
        self.importances: list[Tensor] = []
        """Omega, like the parameters; empty while nothing holds them."""

    def estimate(self) -> list[Tensor]:
        """The importance for the task that ends."""
        raise NotImplementedError

    def published(self) -> list[Tensor]:
        """The importance as the published code has it after a round; empty where there is none yet."""
        raise NotImplementedError

    def context(self) -> Anchors | None:
        if not self.importances or not self.options.penalty:
            return None
        anchors, importances = (dict(zip(self.parameters, of, strict=True)) for of in (self.anchors, self.importances))
        return Anchors(self.options.penalty, anchors, importances)

    @staticmethod
    def penalty(parameters: Mapping[str, Tensor], context: Anchors, batch: Batch, scores: Tensor) -> Tensor:
        return quadratic(parameters, context)

    def end(self) -> None:
        if self.options.importance == "round":
            self.importances = self.published()
        elif self.learner.task_ends:
            new = self.estimate()
            earlier = self.importances or [torch.zeros_like(importance) for importance in new]
            self.importances = [old + more for old, more in zip(earlier, new, strict=True)]
        else:
            return
        self.anchors = [parameter.detach().clone() for parameter in self.parameters.values()]

    def state(self) -> State:
        return {"anchors": self.anchors, "importances": self.importances}

    def restore(self, state: State) -> None:
        self.anchors, self.importances = (
            [tensor.to(self.learner.device) for tensor in state[name]] for name in ("anchors", "importances")
        )
