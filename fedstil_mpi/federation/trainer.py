"""What is done with the images and models of this rank's clients: they are trained, and searched."""

from collections.abc import Callable, Sequence
from typing import Protocol

from fedstil_mpi.client.epochs import Epoch
from fedstil_mpi.client.learner import Learner
from fedstil_mpi.evaluation.search import Search, TailFor
from fedstil_mpi.methods.base import Client


class LocalTrainer(Protocol):
    def train(
        self, round: int, clients: Sequence[Client], efforts: Sequence[float], stop: Callable[[], bool]
    ) -> list[Epoch]:
        """Train the clients on their current tasks; returns how each did, in their order.

        efforts: the share of its local training that each gets done. stop: asked after every batch; raises Stopped, after
        which `learner.training` says how far each has come.
        """

    def search(self, learner: Learner, tail_for: TailFor | None) -> Search:
        """The search of a client's tasks, each by the model that `tail_for` gives, or all by its newest (None)."""


class OneByOne:
    """One client after the other."""

    def __init__(self, at: Callable[..., None]):
        """at: notes what this rank is doing, for the message should it fail."""
        self.at = at

    def train(
        self, round: int, clients: Sequence[Client], efforts: Sequence[float], stop: Callable[[], bool]
    ) -> list[Epoch]:
        epochs = []
        for client, effort in zip(clients, efforts, strict=True):
            learner = client.learner
            self.at(client=learner.client, task=learner.task)
            if client.beside is not None:
                learner.train_beside(client.beside, round, effort, stop)
            epochs.append(learner.train(round, client.penalty, client.context(), effort, stop))
        return epochs

    def search(self, learner: Learner, tail_for: TailFor | None) -> Search:
        return Search(learner, tail_for)
