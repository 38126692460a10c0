"""What a FedWeIT client keeps of its finished tasks: a model for each."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedstil_mpi.comm.flat import Layout, to_host
from fedstil_mpi.models.network import Tail
from fedstil_mpi.util.state_tree import State


@dataclass(frozen=True)
class Finished:
    """A finished task's own parts of the model, pruned: its weights are gate * base + own, with the base of the day."""

    gates: dict[str, Tensor]
    """Name of a layer's weight -> its gate; a layer without one does not depend on the base."""
    own: Tensor
    """Float32 [P] on the CPU."""
    rest: dict[str, Tensor]
    """What is not decomposed: biases, batch norms and their statistics."""


class Past:
    """The models of finished tasks, of which one at a time is set up as a plain tail."""

    derived = ("_tail",)

    def __init__(self, tail: Tail, layout: Layout):
        """tail: a model of this shape, not decomposed."""
        self.tasks: dict[int, Finished] = {}
        self.layout = layout
        self._tail = copy.deepcopy(tail)

    def keep(self, task: int, tail: Tail, gates: dict[str, Tensor], own: Mapping[str, Tensor]) -> None:
        """tail: the decomposed model, of which all that is not decomposed is kept too."""
        state = tail.state_dict().items()
        rest = {name: value.clone() for name, value in state if ".parametrizations." not in name}
        self.tasks[task] = Finished(gates, to_host(self.layout.pack(own)), rest)

    @torch.no_grad()
    def tail(self, task: int, bases: Mapping[str, Tensor]) -> Tail:
        """The model of a finished task on these bases; valid until the next call."""
        kept = self.tasks[task]
        weights = self.layout.unpack(kept.own.to(next(iter(bases.values())).device))
        for name, gate in kept.gates.items():
            weights[name] = torch.addcmul(weights[name], gate, bases[name])
        self._tail.load_state_dict(kept.rest | weights)
        return self._tail

    def state(self) -> State:
        return {str(task): dict(vars(kept)) for task, kept in self.tasks.items()}

    def restore(self, state: State, device: torch.device) -> None:
        """device: of the model."""
        for task, kept in state.items():
            gates, rest = ({name: value.to(device) for name, value in kept[part].items()} for part in ("gates", "rest"))
            self.tasks[int(task)] = Finished(gates, kept["own"], rest)
