"""What every method that exchanges weights shares: deltas against what the other side already knows."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fedstil_mpi.client.learner import Learner
from fedstil_mpi.client.rehearsal import Samples
from fedstil_mpi.comm.columns import mix
from fedstil_mpi.comm.flat import Message, Part, Rows, to_device, to_host
from fedstil_mpi.methods.base import SAMPLES, Client, Server, Setup, Traffic
from fedstil_mpi.models.losses import smoothed_cross_entropy
from fedstil_mpi.models.network import Tail, adaptive_parameters
from fedstil_mpi.util.file_rows import FileRows
from fedstil_mpi.util.state_tree import State

WEIGHTS = "weights"


class FederatedClient(Client):
    """A client that starts a round from weights the server knows too, and sends back how far it moved.

    The server holds start + delta, rounded to float32; the client moves to the same sum, so that both ends agree to the
    last bit. This arithmetic runs on the CPU at both ends. From receipt to the next update may be several rounds.
    """

    serves_received = True
    """Whether the weights that travel are those of the model that is searched."""

    def __init__(self, learner: Learner, setup: Setup, options: Any):
        super().__init__(learner, setup, options)
        self.parameters = self.travelling(learner.tail, options)

    @staticmethod
    def travelling(tail: Tail, options: Any) -> dict[str, nn.Parameter]:
        return adaptive_parameters(tail)

    @staticmethod
    def traffic(setup: Setup, options: Any) -> Traffic:
        weights = Part(WEIGHTS, setup.layout.scalars, columns=1)
        return Traffic(down=(weights,), up=(weights, SAMPLES))

    def theta(self) -> Tensor:
        """The travelling weights, float32 [P] on the CPU."""
        return to_host(self.setup.layout.pack(self.parameters))

    def load(self, theta_P: Tensor) -> Tensor:
        """Take these weights over. Returns them as they are then, which may share memory with `theta_P`."""
        self.learner.own_tail()
        self.setup.layout.load(theta_P, self.parameters)
        return theta_P

    def on_device(self, theta_P: Tensor) -> dict[str, Tensor]:
        """Travelling weights, [P] on the CPU, by parameter on the client's device."""
        return self.setup.layout.unpack(to_device(theta_P, self.learner.device))

    @property
    def start(self) -> Tensor:
        """The travelling weights as the server knows them: at receipt, [P] on the CPU."""
        assert self.learner.untold.start is not None
        return self.learner.untold.start

    @start.setter
    def start(self, theta_P: Tensor) -> None:
        self.learner.untold.start = theta_P

    def absorb(self, knowledge: Message) -> None:
        """A message is valid until the next one, which may come to another client while `start` is still needed."""
        if WEIGHTS not in knowledge:
            self.start = self.theta()
            return
        start = self.load(self.received(to_host(knowledge[WEIGHTS])))
        self.start = start.clone() if self.learner.experiment.rounds.exchange_every > 1 else start

    def received(self, base_P: Tensor) -> Tensor:
        """The weights to start from when this base arrives."""
        return base_P

    @torch.no_grad()
    def losses(self, theta_KP: Tensor, samples: Samples) -> Tensor:
        """The cross entropy of samples with each of these weights, [K] on the CPU. Leaves the model with the last ones."""
        learner, losses_K = self.learner, torch.zeros(len(theta_KP))
        learner.forward_counts["search"] += len(theta_KP) * len(samples)
        for place, theta_P in enumerate(() if learner.counts_only else theta_KP):
            self.load(theta_P)
            scores, _ = learner.tail.eval()(samples.representations)
            losses_K[place] = smoothed_cross_entropy(scores, samples.pids, 0.0, learner.allowed())
        return losses_K

    def update(self) -> Message:
        return {WEIGHTS: self.theta() - self.start, "samples": torch.tensor([self.learner.untold.samples])}

    def sent(self, update: Message) -> None:
        self.load(self.start + update[WEIGHTS])


class KeepingServer(Server):
    """Keeps each client's weights as both ends know them; a client starts from what it is sent."""

    def __init__(self, setup: Setup, options: Any):
        super().__init__(setup, options)
        self.theta_KP = setup.start.repeat(setup.clients, 1)
        self.samples_K = torch.zeros(setup.clients, dtype=torch.int64)
        """New images of each client's newest update, at least 1; 0 for one that was never seen."""

    def sent(self, online: list[int], knowledge: Rows) -> None:
        for client, theta_P in zip(online, knowledge[WEIGHTS], strict=True):
            self.theta_KP[client] = theta_P

    def collect(self, online: list[int], updates: Rows) -> None:
        self.theta_KP.index_add_(0, torch.tensor(online), updates[WEIGHTS])
        self.samples_K[online] = updates["samples"][:, 0].clamp(min=1)

    def state(self) -> State:
        return {"samples": self.samples_K}

    def restore(self, state: State, theta_of: Callable[[int], Tensor]) -> None:
        self.samples_K = state["samples"]
        for client in range(self.setup.clients):
            self.theta_KP[client] = theta_of(client)


class Tying(NamedTuple):
    """Parameter tying: the loss adds weight * sum |parameter - anchor|_1."""

    weight: float
    anchors: Mapping[str, Tensor]
    """Name of a parameter -> where it was at receipt."""

    def loss(self, parameters: Mapping[str, Tensor]) -> Tensor:
        distances = [(parameters[name] - anchor).abs().sum() for name, anchor in self.anchors.items()]
        return self.weight * torch.stack(distances).sum()


def weighted_mean(rows_KP: Tensor | FileRows, samples_K: Tensor) -> Tensor:
    """Sum_j n_j row_j / sum_j n_j, [P]; the plain mean where all n are 0. Rows are added in client order."""
    weights = samples_K.to(rows_KP.dtype)
    if not weights.any():
        weights = torch.ones_like(weights)
    return mix(weights / weights.sum(), rows_KP)
