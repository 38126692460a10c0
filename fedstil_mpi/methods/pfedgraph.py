"""pFedGraph (Ye et al., ICML 2023): every client gets a mean of its own, of clients whose weights have moved as its did.

The server infers how much client i takes from client j, w_ij, from how alike their ways from the start model are and from
their shares of all samples (`collaboration`, alpha), and sends base_i = sum_j w_ij theta_j, from which client i starts. Its
loss adds -lambda * cos(theta, base_i): the paper's pull to the base, which the authors' code has with the other sign.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fedstil_mpi.client.batches import Batch
from fedstil_mpi.comm.flat import Rows
from fedstil_mpi.config.fields import FLOAT32, bounded
from fedstil_mpi.methods import fedavg
from fedstil_mpi.methods.collaboration import collaboration_graph
from fedstil_mpi.methods.federated import WEIGHTS, FederatedClient, KeepingServer
from fedstil_mpi.methods.fedprox import Proximity, to_start


@dataclass(kw_only=True)
class Options(fedavg.Options):
    alpha: float = bounded(0.8, 1e-6, FLOAT32)
    """How much the shares of all samples count against likeness; the larger, the nearer to FedAvg."""
    pull: float = bounded(0.01, 0, FLOAT32)
    """Weight lambda of the pull to the base."""


PRESETS: dict[str, dict[str, Any]] = {"best": {}, "paper": fedavg.PRESETS["paper"]}


class Client(fedavg.Client):
    traffic = staticmethod(FederatedClient.traffic)

    def context(self) -> Proximity | None:
        return to_start(self, self.options.pull)

    @staticmethod
    def penalty(parameters: Mapping[str, Tensor], context: Proximity, batch: Batch, scores: Tensor) -> Tensor:
        theta, base = (torch.cat([of[n].reshape(-1) for n in context.anchors]) for of in (parameters, context.anchors))
        return -context.mu * F.cosine_similarity(theta, base, dim=0)


class Server(KeepingServer):
    def knowledge(self, online: list[int]) -> Rows:
        moved_KP = self.theta_KP - self.setup.start
        self.relevance_OK = collaboration_graph(moved_KP, self.samples_K, self.options.alpha)[online]
        return {WEIGHTS: self.relevance_OK @ self.theta_KP}
