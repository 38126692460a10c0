"""FedAvg (McMahan et al., AISTATS 2017): all clients continue from the sample-weighted mean of their models."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from fedstil_mpi.comm.flat import Part, Rows
from fedstil_mpi.config.fields import choice
from fedstil_mpi.methods import base, single
from fedstil_mpi.methods.base import SAMPLES, Setup, Traffic
from fedstil_mpi.methods.federated import WEIGHTS, FederatedClient, weighted_mean
from fedstil_mpi.models.network import Tail, adaptive_parameters, trainable_parameters
from fedstil_mpi.util.state_tree import State


@dataclass(kw_only=True)
class Options:
    norms: str = choice("local", "averaged")
    """Scale and shift of the tail's batch norms: local (they stay with the client; on a backbone whose layers have no biases
    this is FedBN: Li et al., ICLR 2021) | averaged (as the reference does). Running statistics always stay with the client."""


PRESETS: dict[str, dict[str, Any]] = {
    "best": {},
    "paper": single.PRESETS["paper"],
    "reference_code": single.PRESETS["reference_code"] | {"method.norms": "averaged"},
}


class Client(FederatedClient):
    @staticmethod
    def travelling(tail: Tail, options: Options) -> dict[str, nn.Parameter]:
        return trainable_parameters(tail) if options.norms == "averaged" else adaptive_parameters(tail)

    @staticmethod
    def traffic(setup: Setup, options: Options) -> Traffic:
        own = Part(WEIGHTS, setup.layout.scalars, columns=1)
        return Traffic(down=(replace(own, shared=True),), up=(own, SAMPLES))


class Server(base.Server):
    in_parts = True
    columns: tuple[str, ...] = ("theta",)

    @staticmethod
    def by_columns(options: Options) -> bool:
        return True

    def __init__(self, setup: Setup, options: Options):
        super().__init__(setup, options)
        self.theta_P: Tensor = setup.start.clone()

    def knowledge(self, online: list[int]) -> Rows:
        return {WEIGHTS: self.theta_P}

    def collect(self, online: list[int], updates: Rows) -> None:
        self.theta_P = self.theta_P + weighted_mean(updates[WEIGHTS], updates["samples"][:, 0])

    def state(self) -> State:
        return {"theta": self.theta_P}

    def restore(self, state: State, theta_of: Callable[[int], Tensor]) -> None:
        self.theta_P = state["theta"]
