"""The quadratic penalty that holds parameters where they were: of EWC, MAS, FedCurv and FedWeIT's drift.

A sum of terms importance_i * (parameter - parameter_i)^2 is, up to a constant, one such term: its importance is the sum
of all, its centre their weighted mean. So however many tasks or clients hold a parameter, two tensors stand for them.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fedstil_mpi.util.state_tree import State


class Quadratic(NamedTuple):
    """What holds parameters, by name; each tensor on its parameter's device."""

    weight: float
    """Weight of the penalty."""
    centres: Mapping[str, Tensor]
    importances: Mapping[str, Tensor]
    """Each broadcasts to its parameter's shape."""


def quadratic(parameters: Mapping[str, Tensor], held: Quadratic) -> Tensor:
    """weight * sum of importance * (parameter - centre)^2: a scalar."""
    terms = [
        (importance * F.mse_loss(parameters[name], held.centres[name], reduction="none")).sum()
        for name, importance in held.importances.items()
    ]
    return held.weight * torch.stack(terms).sum()


class QuadraticSum:
    """The sum of several such penalties, of which one may be added after the other."""

    def __init__(self) -> None:
        self.centres: dict[str, Tensor] = {}
        self.importances: dict[str, Tensor] = {}
        """Empty while nothing is held."""

    @torch.no_grad()
    def add(self, parameters: Mapping[str, Tensor], importances: Mapping[str, Tensor]) -> None:
        """A further term around where the parameters are now: each centre moves to the weighted mean."""
        for name, new in importances.items():
            now = parameters[name].detach()
            centre = self.centres.setdefault(name, torch.zeros_like(now))
            total = self.importances.setdefault(name, torch.zeros_like(new)).add_(new)
            centre += new / total.clamp_min(torch.finfo(total.dtype).tiny) * (now - centre)

    def add_at_newest(self, parameters: Mapping[str, Tensor], importances: Mapping[str, Tensor]) -> None:
        """A further term, after which all of them have their centre where the parameters are now: no sum, but online."""
        for name, new in importances.items():
            self.importances.setdefault(name, torch.zeros_like(new)).add_(new)
            self.centres[name] = parameters[name].detach().clone()

    def weighted(self, weight: float) -> Quadratic | None:
        """The penalty times `weight`; None where it is nothing."""
        return Quadratic(weight, self.centres, self.importances) if weight and self.importances else None

    def state(self) -> State:
        return {"centres": self.centres, "importances": self.importances}

    def restore(self, state: State, device: torch.device) -> None:
        """device: of the parameters."""
        self.centres, self.importances = (
            {name: tensor.to(device) for name, tensor in state[what].items()} for what in ("centres", "importances")
        )
