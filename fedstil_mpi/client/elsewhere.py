"""Pictures by other cameras pass a client's model with batch norms that know how such pictures differ.

A client's batch norms know its own camera, mostly. Another camera's pictures come to them with other means, whoever is in them. How far
these lie apart shows in the people who are known from here and from elsewhere: for pictures from elsewhere each running mean is
moved by a share of the difference between the means that these people's representations have there and here, layer by layer, each
behind those that are moved already. It is adaptive batch normalisation (Li et al., Pattern Recognition 2018) between cameras
(compare camera-based batch normalisation, Zhuang et al., ECCV 2020), with the same people on both sides. Nothing is
trained for it, and no picture that is searched is looked at.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from fedstil_mpi.models.network import Tail, owner

Norms = dict[str, Tensor]
"""Name of a running mean in a tail -> what stands there for pictures from elsewhere, float32 [channels]."""


@torch.no_grad()
def fit(tail: Tail, here: Tensor, there: Tensor, share: float) -> tuple[Norms, Tensor, Tensor]:
    """The norms, and the features [n, F] and [m, F] of `here` and, with these norms, of `there`.

    tail: in evaluation mode. here, there: representations [n, ...] and [m, ...] of the same people, on the tail's device. share:
    of the difference.
    """
    norms: Norms = {}
    with ExitStack() as hooks:
        for name, norm in tail.named_modules() if share else ():
            if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_mean is not None:
                hook = norm.register_forward_hook(partial(_move, norms, f"{name}.running_mean", len(here), share))
                hooks.callback(hook.remove)
        features = tail.features(torch.cat([here, there]))
    return norms, features[: len(here)], features[len(here) :]


def _move(
    norms: Norms, name: str, number: int, share: float, norm: nn.BatchNorm2d, given: tuple[Tensor], made: Tensor
) -> Tensor:
    """What a batch norm makes of what it is given, of which all but the first `number` are from elsewhere."""
    maps = given[0].float()
    axes = [0, *range(2, maps.dim())]
    shift = share * (maps[number:].mean(axes) - maps[:number].mean(axes))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norms[name] = norm.running_mean + shift
    slope = (norm.running_var + norm.eps).rsqrt() * (1.0 if norm.weight is None else norm.weight)
    moved = made[number:] - (slope * shift).to(made.dtype).view(-1, *[1] * (made.dim() - 2))
    return torch.cat([made[:number], moved])


@contextmanager
def from_elsewhere(tail: Tail, norms: Norms) -> Iterator[None]:
    """While it lasts, the tail is as for pictures from elsewhere; its own tensors are not written to."""
    own = [(*owner(tail, name), mean) for name, mean in norms.items()]
    kept = [getattr(norm, attribute) for norm, attribute, _ in own]
    try:
        for norm, attribute, mean in own:
            setattr(norm, attribute, mean)
        yield
    finally:
        for (norm, attribute, _), mean in zip(own, kept, strict=True):
            setattr(norm, attribute, mean)
