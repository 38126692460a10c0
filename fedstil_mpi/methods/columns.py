"""A method's server on one of several ranks that share the columns of its rows."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fedstil_mpi.methods.aids import AidedServer
from fedstil_mpi.methods.base import Server, Setup
from fedstil_mpi.util.state_tree import State


class ColumnServer(AidedServer):
    """Does for some columns what a server on rank 0 does for all; its state, valid on rank 0, is that server's."""

    derived = (*Server.derived, "own", "join")

    def __init__(self, kind: type[Server], setup: Setup, options: Any, own: slice, join: Callable[[Tensor], Tensor]):
        """own: this rank's columns; join: puts those of all ranks together on rank 0, collective."""
        super().__init__(kind(setup.cut(own), options))
        self.setup = setup
        self.own = own
        self.join = join

    def state(self) -> State:
        """Collective: all ranks must call."""
        state = self.inner.state()
        return state | {key: self.join(state[key]) for key in self.inner.columns if key in state}

    def restore(self, state: State, theta_of: Callable[[int], Tensor]) -> None:
        cut = {key: state[key][..., self.own].clone() for key in self.inner.columns if key in state}
        self.inner.restore(state | cut, lambda client: theta_of(client)[self.own].clone())
