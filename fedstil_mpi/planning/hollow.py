"""A network of which every tensor holds one number: what a plan runs a method on.

A method's own code then decides what is sent, kept and made of what, at hardly any cost; how large things really are is
read from the layouts of the real network (on the device meta). Tensors on meta would do for the loop too, but an
addition of two of them costs 150 us instead of 1.5 us (torch 2.13, one core), and a thousand clients make a hundred
thousand.
"""

import copy
from collections.abc import Mapping
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from fedstil_mpi.comm.flat import Layout
from fedstil_mpi.models.network import Network, Tail


class HollowStem(nn.Module):
    """Images [n, ...] -> representations of one number, [n, 1]."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images), 1)


class HollowTail(Tail):
    """Has the layers of a real tail, but does not use them: features and scores are zeros with a gradient."""

    def features(self, representations: Tensor) -> Tensor:
        return self._zero().expand(len(representations), self.classifier.in_features)

    def forward(self, representations: Tensor) -> tuple[Tensor, Tensor]:
        scores = self._zero().expand(len(representations), self.classifier.out_features)
        return scores, self.features(representations)

    def _zero(self) -> Tensor:
        return 0 * torch.stack([parameter.sum() for parameter in self.parameters()]).sum()

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> None:
        """The values of another hollow tail mean as little."""

    def __deepcopy__(self, memo: Mapping[int, Any]) -> "HollowTail":
        """Layers of its own around the same tensors."""
        return _twin(self)

    def twin(self) -> "HollowTail":
        return _twin(self)

    def leave_twins(self) -> None:
        """The values that they share mean as little."""


class HollowLayout(Layout):
    """Of hollow tensors: what it packs are zeros, and nothing is loaded, since their values mean nothing."""

    @classmethod
    def like(cls, layout: Layout) -> "HollowLayout":
        return cls(layout.names, layout.shapes, layout.dtype)

    @cached_property
    def _zeros(self) -> Tensor:
        return torch.zeros(self.scalars, dtype=self.dtype)

    def pack(self, tensors: Mapping[str, Tensor]) -> Tensor:
        return self._zeros

    def load(self, flat: Tensor, tensors: Mapping[str, Tensor]) -> None:
        pass


def hollow(network: Network) -> Network:
    """The hollow form of a network, which may be on the device meta; it is left as it is."""
    tensors = chain(network.tail.parameters(), network.tail.buffers())
    tail: Tail = copy.deepcopy(network.tail, {id(tensor): _one_number(tensor) for tensor in tensors})
    tail.__class__ = HollowTail
    return Network(HollowStem(), tail, network.provided)


def _one_number(tensor: Tensor) -> Tensor:
    number = torch.zeros([1] * tensor.dim(), dtype=tensor.dtype)
    return nn.Parameter(number, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else number


def _twin(module: Any) -> Any:
    twin = object.__new__(type(module))
    state = vars(module)
    own = {name: state[name].copy() for name in ("_parameters", "_buffers", "_modules")}
    for name, part in own["_modules"].items():
        own["_modules"][name] = None if part is None else _twin(part)
    vars(twin).update(state | own)
    return twin
