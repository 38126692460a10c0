"""A client that learns alone and is held, parameter by parameter, to where it stood: what EWC and MAS share."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fedstil_mpi.client.batches import Batch
from fedstil_mpi.client.learner import Learner
from fedstil_mpi.methods.base import Client, Setup
from fedstil_mpi.methods.quadratic import Quadratic, QuadraticSum, quadratic
from fedstil_mpi.models.network import trainable_parameters
from fedstil_mpi.util.state_tree import State


class AnchoredClient(Client):
    """Penalty lambda * sum over finished tasks t of Omega_t (phi - phi_t)^2, over all parameters that are trained.

    Omega_t is the importance for task t, and phi_t are the parameters at its end; with anchors "newest" those at the end
    of the newest finished task for all. With importance "round" there is one term, made again after every round.
    """

    def __init__(self, learner: Learner, setup: Setup, options: Any):
        super().__init__(learner, setup, options)
        self.parameters = trainable_parameters(learner.tail)
        self.held = QuadraticSum()

    def estimate(self) -> list[Tensor]:
        """The importance for the task that ends."""
        raise NotImplementedError

    def reference_code(self) -> list[Tensor]:
        """The importance as the reference code has it after a round; empty where there is none yet."""
        raise NotImplementedError

    def context(self) -> Quadratic | None:
        return self.held.weighted(self.options.penalty)

    @staticmethod
    def penalty(parameters: Mapping[str, Tensor], context: Quadratic, batch: Batch, scores: Tensor) -> Tensor:
        return quadratic(parameters, context)

    def end(self) -> None:
        if self.options.importance == "round":
            self.held = QuadraticSum()
            if importances := self.reference_code():
                self.held.add_at_newest(self.parameters, dict(zip(self.parameters, importances, strict=True)))
        elif self.learner.task_ends:
            add = self.held.add if self.options.anchors == "tasks" else self.held.add_at_newest
            add(self.parameters, dict(zip(self.parameters, self.estimate(), strict=True)))

    def state(self) -> State:
        return self.held.state()

    def restore(self, state: State) -> None:
        self.held.restore(state, self.learner.device)
