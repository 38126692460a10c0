"""Pictures by other cameras pass a client's model with batch norms that know how such pictures differ.

A client's batch norms know its own camera, mostly. Another camera's pictures come to them with other means and variances, whoever is
in them. How far these lie apart shows in the people who are known from here and from elsewhere: for pictures from elsewhere the
running statistics are moved by a share of the way between these people's representations here and there, layer by layer, each
behind those that are moved already. A mean m goes to m + share * (there - here), a variance v to
v * ((there + v) / (here + v)) ** share, in which v itself keeps the few people's variances from saying much. It is adaptive batch
normalisation (Li et al., Pattern Recognition 2018) between cameras (compare camera-based batch normalisation, Zhuang et al., ECCV
2020), of people who are known on both sides, though not each as often. Nothing is trained for it, and no picture that is searched is
looked at.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedstil_mpi.models.network import Tail, owner

Norms = dict[str, Tensor]
"""Name of a running mean or variance in a tail -> what stands there for pictures from elsewhere, float32 [channels]."""


@torch.no_grad()
def fit(tail: Tail, here: Tensor, there: Tensor, share: float) -> tuple[Norms, Tensor, Tensor]:
    """The norms, and the features [n, F] and [m, F] of `here` and, with these norms, of `there`.

    tail: in evaluation mode. here, there: representations [n, ...] and [m, ...] of the same people, on the tail's device. share:
    of the way from here to there; 0: there are no such norms. A batch norm that is not given something of each picture, as where
    parts of pictures are lined up, stays as it is.
    """
    norms: Norms = {}
    with ExitStack() as hooks:
        for name, norm in tail.named_modules() if share else ():
            if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_mean is not None:
                hook = norm.register_forward_hook(partial(_move, norms, name, (len(here), len(there)), share))
                hooks.callback(hook.remove)
        features = tail.features(torch.cat([here, there]))
    return norms, features[: len(here)], features[len(here) :]


def _move(
    norms: Norms,
    name: str,
    numbers: tuple[int, int],
    share: float,
    norm: nn.BatchNorm2d,
    given: tuple[Tensor],
    made: Tensor,
) -> Tensor:
    """What a batch norm makes of what it is given. numbers: of pictures from here and, behind them, from elsewhere."""
    number = numbers[0]
    if len(given[0]) != sum(numbers):
        return made
    assert norm.running_mean is not None
    assert norm.running_var is not None
    maps = given[0].float()
    axes = [0, *range(2, maps.dim())]
    own, away = maps[:number], maps[number:]
    mean = norm.running_mean + share * (away.mean(axes) - own.mean(axes))
    spread = norm.running_var + norm.eps
    ratio = (away.var(axes, correction=0) + spread) / (own.var(axes, correction=0) + spread)
    variance = norm.running_var * ratio**share
    norms |= {f"{name}.running_mean": mean, f"{name}.running_var": variance}
    moved = F.batch_norm(given[0][number:], mean, variance, norm.weight, norm.bias, eps=norm.eps)
    return torch.cat([made[:number], moved])


@contextmanager
def from_elsewhere(tail: Tail, norms: Norms) -> Iterator[None]:
    """While it lasts, the tail is as for pictures from elsewhere; its own tensors are not written to."""
    own = [(*owner(tail, name), moved) for name, moved in norms.items()]
    kept = [getattr(norm, attribute) for norm, attribute, _ in own]
    try:
        for norm, attribute, moved in own:
            setattr(norm, attribute, moved)
        yield
    finally:
        for (norm, attribute, _), before in zip(own, kept, strict=True):
            setattr(norm, attribute, before)
