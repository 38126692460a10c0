"""FedFomo (Zhang et al., ICLR 2021): every client gets all models, and moves to those that suit its own images better.

With theta_i as client i trained it, and L_i its loss on images of its newest task that it does not train with,
    w_ij = max(0, (L_i(theta_i) - L_i(theta_j)) / |theta_j - theta_i|), scaled to a sum of 1
    theta_i <- theta_i + sum_j w_ij (theta_j - theta_i)
so that a client whose own model is the best keeps it. j goes over the clients that have sent weights. Down come K times the
weights: all clients', where the paper sends a sample of them to save bytes. A model is tried with the client's own batch norms, as
far as these do not travel.
"""

from dataclasses import dataclass
from typing import Any

import torch

from fedstil_mpi.client.learner import Learner
from fedstil_mpi.comm.flat import Message, Part, Rows, to_host
from fedstil_mpi.config.fields import bounded
from fedstil_mpi.methods import fedavg, fedstil_atten
from fedstil_mpi.methods.base import Setup, Traffic
from fedstil_mpi.methods.collaboration import first_order_weights
from fedstil_mpi.methods.fedstil_atten import BANK

SEEN = "seen"
"""The kind of message that says which columns of the bank are clients' own weights: int64 [K], 1 or 0."""


@dataclass(kw_only=True)
class Options(fedavg.Options):
    held_out: int = bounded(1, 0, 10**6)
    """Images of each person in a task that are kept from training, but never all; where none are, models are tried on those
    that are trained with."""


PRESETS: dict[str, dict[str, Any]] = {"best": {}, "paper": fedavg.PRESETS["paper"]}


class Client(fedavg.Client):
    def __init__(self, learner: Learner, setup: Setup, options: Options):
        super().__init__(learner, setup, options)
        learner.views.held_out = options.held_out

    @staticmethod
    def traffic(setup: Setup, options: Any) -> Traffic:
        bank = Part(BANK, setup.clients * setup.layout.scalars, shared=True)
        seen = Part(SEEN, setup.clients, torch.int64, shared=True)
        return Traffic((bank, seen), fedavg.Client.traffic(setup, options).up)

    def absorb(self, knowledge: Message) -> None:
        """A late joiner begins with its column, the mean of the others."""
        if BANK not in knowledge:
            super().absorb(knowledge)
            return
        theta_KP, own = to_host(knowledge[BANK]).view(-1, self.setup.layout.scalars), self.learner.client
        self.start = theta_KP[own].clone()
        theta_P = self.start
        if self.learner.draws:
            tried_K = knowledge[SEEN].bool()
            tried_K[own] = True
            theta_NP = theta_KP[tried_K]
            losses_N = self.losses(theta_NP, self.learner.views.tried(self.learner.task))
            weights_N = first_order_weights(losses_N, theta_NP, int(tried_K[:own].sum()))
            theta_P = self.start + weights_N @ (theta_NP - self.start)
        self.load(theta_P)


class Server(fedstil_atten.Server):
    def knowledge(self, online: list[int]) -> Rows:
        return super().knowledge(online) | {SEEN: (self.samples_K > 0).long()}
