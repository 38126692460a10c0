"""A client that learns alone and is held, parameter by parameter, to where it stood: what EWC and MAS share."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fedstil_mpi.client.learner import Learner
from fedstil_mpi.client.local_training import Batch
from fedstil_mpi.methods.base import Client, Setup
from fedstil_mpi.models.network import trainable_parameters
from fedstil_mpi.util.state_tree import State


def quadratic(parameters: Sequence[Tensor], anchors: Sequence[Tensor], importances: Sequence[Tensor]) -> Tensor:
    """Sum of importance * (parameter - anchor)^2: a scalar. The three have equal shapes and devices, one by one."""
    terms = [
        (importance * F.mse_loss(parameter, anchor, reduction="none")).sum()
        for parameter, anchor, importance in zip(parameters, anchors, importances, strict=True)
    ]
    return torch.stack(terms).sum()


class AnchoredClient(Client):
    """Penalty lambda * sum Omega (phi - phi*)^2 over all parameters that are trained.

    phi* are the parameters at the end of the newest finished task, Omega is the sum of the importances for all finished
    tasks. With importance "round", both are made anew after every round.
    """

    passes_more = True

    def __init__(self, learner: Learner, setup: Setup, options: Any):
        super().__init__(learner, setup, options)
        self.parameters = list(trainable_parameters(learner.tail).values())
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

    def penalty(self, batch: Batch, scores: Tensor) -> Tensor | None:
        if not self.importances or not self.options.penalty:
            return None
        return self.options.penalty * quadratic(self.parameters, self.anchors, self.importances)

    def end(self) -> None:
        if self.options.importance == "round":
            self.importances = self.published()
        elif self.learner.task_ends:
            new = self.estimate()
            earlier = self.importances or [torch.zeros_like(importance) for importance in new]
            self.importances = [old + more for old, more in zip(earlier, new, strict=True)]
        else:
            return
        self.anchors = [parameter.detach().clone() for parameter in self.parameters]

    def state(self) -> State:
        return {"anchors": self.anchors, "importances": self.importances}

    def restore(self, state: State) -> None:
        self.anchors, self.importances = (
            [tensor.to(self.learner.device) for tensor in state[name]] for name in ("anchors", "importances")
        )
