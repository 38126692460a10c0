"""Averaging over time: an aid by which a client is searched with the running mean of the weights that it was sent.

It trains on from the newest ones. What an exchange brings differs from round to round by what the others last trained
on; its mean over rounds does less (compare stochastic weight averaging, Izmailov et al., UAI 2018). Nothing travels for
it. It takes effect in the models that are searched after an exchange, and in those that a run keeps.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from fedstil_mpi.comm.flat import Message
from fedstil_mpi.methods.aids import ServingAid
from fedstil_mpi.methods.base import Client, Traffic
from fedstil_mpi.methods.federated import FederatedClient
from fedstil_mpi.util.shelf import Compartment
from fedstil_mpi.util.state_tree import State


def applies(client: type[Client], traffic: Traffic) -> bool:
    """Whether clients of a method with this traffic are searched with weights that they are sent."""
    return bool(traffic.down) and issubclass(client, FederatedClient) and client.serves_received


class AveragedClient(ServingAid):
    """A method's client with such a mean; the first weights that it is sent begin it."""

    derived = (*Client.derived, "past")

    def __init__(self, inner: Client, past: float):
        """inner: of a class that `applies`; past: the share of the past s in the mean m <- s * m + (1 - s) * theta."""
        super().__init__(inner)
        assert isinstance(inner, FederatedClient)
        self.inner: FederatedClient = inner
        self.past = past
        self.mean: Tensor | None = None
        """[P] on the CPU."""

    def absorb(self, knowledge: Message) -> None:
        super().absorb(knowledge)
        if knowledge:
            theta = self.inner.theta()
            self.mean = theta if self.mean is None else torch.lerp(theta, self.mean, self.past)

    @contextmanager
    def serving(self) -> Iterator[None]:
        if self.mean is None or not self.arrived:
            yield
            return
        with self.learner.tail_memory.set_aside():
            self.inner.load(self.mean)
            yield

    def put_away(self, shelf: Compartment) -> None:
        self.inner.put_away(shelf)
        self.mean = shelf.put("mean", self.mean)

    def state(self) -> State:
        return {"inner": self.inner.state(), "mean": self.mean}

    def restore(self, state: State) -> None:
        self.inner.restore(state["inner"])
        self.mean = state["mean"]
