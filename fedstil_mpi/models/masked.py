"""FedWeIT's decomposed weights, as a parametrization of a convolution's or linear layer's `weight`.

    theta = mask * B + A + sum_k a_k * G[k]

The layer's own weight becomes the base B, which all tasks and clients share. A task's own parts are a mask over output
channels, the adaptive weights A, and the attention a [n] to a bank G [n, ...] of other clients' adaptive weights.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize


class Masked(nn.Module):
    """As in the paper: the mask passes a sigmoid; mask and A are pruned outside training.

    Pruning sets to 0 what is not above a threshold in magnitude. A task begins with A = 0, so that A holds only what
    the task adds and is as sparse as that is, and with a mask that is nearly open but can still close.
    """

    initial = 2.0
    """The mask's first value, before the sigmoid: 0.88 of the base."""
    knowledge: Tensor

    def __init__(self, base: Tensor, threshold: float = 0.0, mask_threshold: float = 0.0):
        """base: the weight as it is now, [out, ...]; thresholds: of A and of the mask."""
        super().__init__()
        self.threshold = threshold
        self.mask_threshold = mask_threshold
        self.mask = nn.Parameter(base.new_full((len(base), *[1] * (base.dim() - 1)), self.initial))
        self.adaptive = nn.Parameter(torch.empty_like(base))
        self.attention = nn.Parameter(base.new_empty(0))
        self.register_buffer("knowledge", base.new_empty(0, *base.shape))
        self.restart(base, self.knowledge)

    @torch.no_grad()
    def restart(self, base: Tensor, knowledge: Tensor) -> None:
        """Begin a new task with this bank, [n, *base.shape], and no attention to it yet."""
        self.mask.fill_(self.initial)
        self.adaptive.zero_()
        self._receive(knowledge)

    def _receive(self, knowledge: Tensor) -> None:
        self.knowledge = knowledge.to(self.adaptive.device)
        self.attention = nn.Parameter(self.adaptive.new_zeros(len(knowledge)))

    @property
    def prunes(self) -> bool:
        """Whether the layer's weight is pruned in the current mode."""
        return not self.training

    @staticmethod
    def opening(mask: Tensor) -> Tensor:
        """What a mask lets through of each output channel, [out, 1, ...], before pruning."""
        return mask.sigmoid()

    def gate(self, prune: bool) -> Tensor:
        """The factor of the base, [out, 1, ...]."""
        opening = self.opening(self.mask)
        return F.hardshrink(opening, self.mask_threshold) if prune else opening

    def added(self, prune: bool) -> Tensor:
        """A, in the shape of the base."""
        return F.hardshrink(self.adaptive, self.threshold) if prune else self.adaptive

    def own(self, prune: bool) -> Tensor:
        """A + sum_k a_k * G[k]: all of theta but the masked base."""
        adaptive = self.added(prune)
        if not len(self.attention):
            return adaptive
        return torch.addmv(adaptive.flatten(), self.knowledge.flatten(1).T, self.attention).view_as(adaptive)

    def theta(self, base: Tensor, prune: bool) -> Tensor:
        return torch.addcmul(self.own(prune), self.gate(prune), base)

    def forward(self, base: Tensor) -> Tensor:
        return self.theta(base, self.prunes)

    @classmethod
    def size(cls, adaptive: Tensor, mask: Tensor) -> Tensor:
        """|A|_1 + |mask|_1, a scalar: what is penalised to make them sparse."""
        return adaptive.abs().sum() + cls.opening(mask).abs().sum()


class ReferenceCodeMasked(Masked):
    """As in FedSTIL's reference code: the mask is a raw number, and training, and only training, prunes."""

    initial = 0.5

    @torch.no_grad()
    def restart(self, base: Tensor, knowledge: Tensor) -> None:
        """Every new base sets A to (1 - mask) * B, so that theta is the base; the mask stays."""
        self.adaptive.copy_(base - self.mask * base)
        self._receive(knowledge)

    @property
    def prunes(self) -> bool:
        return self.training

    @staticmethod
    def opening(mask: Tensor) -> Tensor:
        return mask


def decompose(
    layer: nn.Module, kind: type[Masked], threshold: float, mask_threshold: float, weight: str = "weight"
) -> Masked:
    """Put the decomposition in the place of the layer's weight, whose parameter object lives on as the base."""
    part = kind(cast(Tensor, getattr(layer, weight)), threshold, mask_threshold)
    parametrize.register_parametrization(layer, weight, part)
    return part
