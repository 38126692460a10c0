"""Ditto (Li et al., ICML 2021): FedAvg, beside which every client trains a personal model that stays near the global one.

In a round client i takes two models from where they are, on the same batches:
    w_i   the global model w as received, by its own loss L_i; this one goes back and is averaged
    v_i   its personal one, by L_i(v) + lambda / 2 * |v - w|^2; this one never travels
The personal model is the client's own: it is searched, chooses exemplars, and is kept. So local training costs twice.
"""

import copy
from dataclasses import dataclass
from typing import Any

from fedstil_mpi.client.learner import Learner
from fedstil_mpi.comm.flat import Message
from fedstil_mpi.config.fields import FLOAT32, bounded
from fedstil_mpi.methods import fedavg, fedprox
from fedstil_mpi.methods.base import Setup
from fedstil_mpi.methods.fedavg import Server
from fedstil_mpi.models.network import Tail
from fedstil_mpi.util.state_tree import State

__all__ = ["PRESETS", "Client", "Options", "Server"]


@dataclass(kw_only=True)
class Options(fedavg.Options):
    pull: float = bounded(1.0, 0, FLOAT32)
    """Weight lambda of the pull to the global model; 0: the personal one learns alone."""


PRESETS: dict[str, dict[str, Any]] = {"best": {}, "paper": fedavg.PRESETS["paper"]}


class Client(fedavg.Client):
    serves_received = False
    penalty = staticmethod(fedprox.Client.penalty)
    beside: Tail

    def __init__(self, learner: Learner, setup: Setup, options: Options):
        super().__init__(learner, setup, options)
        self.beside = copy.deepcopy(learner.tail)
        self.parameters = self.travelling(self.beside, options)

    def absorb(self, knowledge: Message) -> None:
        """Both models of a new client are the start model with what is sent."""
        new = not self.learner.draws
        if new:
            self.beside.load_state_dict(self.learner.tail.state_dict())
        super().absorb(knowledge)
        if new:
            self.learner.start_from(self.beside.state_dict())

    def context(self) -> fedprox.Proximity | None:
        return fedprox.to_start(self, self.options.pull)

    def state(self) -> State:
        return {"beside": dict(self.beside.state_dict())}

    def restore(self, state: State) -> None:
        self.beside.load_state_dict(state["beside"])
