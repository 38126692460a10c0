"""Aids: what any method can be given beside its own way. They wrap its two sides, and change their messages."""

from contextlib import AbstractContextManager
from typing import Any

from fedstil_mpi.client.local_training import Penalty
from fedstil_mpi.comm.flat import Message, Rows
from fedstil_mpi.methods.base import Client, Server
from fedstil_mpi.models.network import Tail
from fedstil_mpi.util.shelf import Compartment
from fedstil_mpi.util.state_tree import State


class AidedClient(Client):
    """A client that does what `inner` does; an aid overrides what it changes."""

    def __init__(self, inner: Client):
        super().__init__(inner.learner, inner.setup, inner.options)
        self.inner = inner
        self.task_aware = inner.task_aware
        self.beside = inner.beside

    def absorb(self, knowledge: Message) -> None:
        self.inner.absorb(knowledge)

    def begin(self) -> None:
        self.inner.begin()

    def context(self) -> Any:
        return self.inner.context()

    @property
    def penalty(self) -> Penalty:  # type: ignore[override]
        return self.inner.penalty

    def end(self) -> None:
        self.inner.end()

    def update(self) -> Message:
        return self.inner.update()

    def sent(self, update: Message) -> None:
        self.inner.sent(update)

    def tail_for(self, task: int) -> Tail:
        return self.inner.tail_for(task)

    def serving(self) -> AbstractContextManager[None]:
        return self.inner.serving()

    def put_away(self, shelf: Compartment) -> None:
        self.inner.put_away(shelf)

    def state(self) -> State:
        return self.inner.state()

    def restore(self, state: State) -> None:
        self.inner.restore(state)


class ServingAid(AidedClient):
    """An aid that takes effect in what is searched after an exchange alone."""

    transient = ("arrived",)

    def __init__(self, inner: Client):
        super().__init__(inner)
        self.arrived = False
        """Whether nothing was trained since something arrived."""

    def absorb(self, knowledge: Message) -> None:
        super().absorb(knowledge)
        self.arrived = self.arrived or bool(knowledge)

    def begin(self) -> None:
        self.arrived = False
        super().begin()


class AidedServer(Server):
    """A server that does what `inner` does; an aid overrides what it changes, and has a state."""

    def __init__(self, inner: Server):
        super().__init__(inner.setup, inner.options)
        self.inner = inner

    def knowledge(self, online: list[int]) -> Rows:
        self.inner.known = self.known
        message = self.inner.knowledge(online)
        self.relevance_OK = self.inner.relevance_OK
        return message

    def sent(self, online: list[int], knowledge: Rows) -> None:
        self.inner.sent(online, knowledge)

    def collect(self, online: list[int], updates: Rows) -> None:
        self.inner.collect(online, updates)


def innermost(side: Any) -> Any:
    """A method's client or server without its aids."""
    while isinstance(side, AidedClient | AidedServer):
        side = side.inner
    return side
