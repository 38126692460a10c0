"""Where a client's tail lies."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

from torch import Tensor

from fedstil_mpi.models.network import Tail
from fedstil_mpi.util.shelf import Compartment


class TailMemory:
    """At first in the start model's memory, in its own once it is to be changed, and on a shelf while its client is away."""

    def __init__(self, tail: Tail):
        self.tail = tail
        self.is_own = False

    def own(self) -> None:
        """Before the tail is changed."""
        if not self.is_own:
            self.tail.leave_twins()
            self.is_own = True

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """While it lasts, the tail can be changed; afterwards it is as it was, and where."""
        kept, was_own = [tensor.data for tensor in self._tensors()], self.is_own
        self.tail.leave_twins()
        self.is_own = True
        try:
            yield
        finally:
            for tensor, before in zip(self._tensors(), kept, strict=True):
                tensor.data = before
            self.is_own = was_own

    def put_away(self, shelf: Compartment) -> None:
        """It can be searched with there. A GPU's memory is left as it is."""
        if self.is_own and not next(self._tensors()).is_cuda:
            for place, tensor in enumerate(self._tensors()):
                tensor.data = shelf.put(place, tensor.data)
            self.is_own = False

    def _tensors(self) -> Iterator[Tensor]:
        return chain(self.tail.parameters(), self.tail.buffers())
