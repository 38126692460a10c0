"""Decomposed weights, as parametrizations of a convolution's or linear layer's `weight`.

    theta = alpha * B + A                  Adaptive            (FedSTIL)
    theta = sum_k a_k * G[..., k] + A      AttentiveAdaptive   (FedSTIL-atten)

Use them where the parts are trained themselves. FedSTIL's default has no need of them: see `methods/fedstil/method.py`.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class Adaptive(nn.Module):
    """theta = alpha * B + A: the base B comes from the server, the adaptive part A is trained.

    alpha is a vector over the weight's last axis (input features, or kernel width), constant and frozen. The anchors
    are where alpha and A were when the base arrived; with `trained_anchor` they are themselves trained, as in the
    reference code, and follow.
    """

    base: Tensor

    def __init__(self, base: Tensor, alpha: float, *, trained_anchor: bool = False):
        super().__init__()
        self.register_buffer("base", base.detach().clone())
        self.alpha = nn.Parameter(torch.full((base.shape[-1],), alpha, device=base.device), requires_grad=False)
        self.anchor = nn.Parameter(self.rest(base.detach()), requires_grad=trained_anchor)
        self.alpha_anchor = nn.Parameter(self.alpha.detach().clone(), requires_grad=trained_anchor)

    def rest(self, base: Tensor) -> Tensor:
        """(1 - alpha) * base: the adaptive part with which theta is the base, for alpha from 1/2 to 1 to the last bit."""
        return base - self.alpha * base

    def forward(self, adaptive: Tensor) -> Tensor:
        return self.alpha * self.base + adaptive

    def right_inverse(self, theta: Tensor) -> Tensor:
        return theta - self.alpha * self.base


def decompose(layer: nn.Module, alpha: float, weight: str = "weight", *, trained_anchor: bool = False) -> None:
    """Put alpha * B + A in the place of the layer's weight, B being its value now, so that the value does not change."""
    part = Adaptive(cast(Tensor, getattr(layer, weight)), alpha, trained_anchor=trained_anchor)
    parametrize.register_parametrization(layer, weight, part)


def parts(layer: nn.Module, weight: str = "weight") -> tuple[Adaptive, nn.Parameter]:
    """The parametrization of a decomposed layer, and its A."""
    of_weight = getattr(cast(Any, layer.parametrizations), weight)
    return of_weight[0], of_weight.original


def tying(alpha: Tensor, adaptive: Tensor, alpha_anchor: Tensor, anchor: Tensor) -> Tensor:
    """Parameter tying of a decomposed layer: the L1 distance of alpha and A from their anchors; a scalar."""
    return (alpha_anchor - alpha).abs().sum() + (anchor - adaptive).abs().sum()


@torch.no_grad()
def receive_base(layer: nn.Module, base: Tensor, weight: str = "weight") -> None:
    """A new base for a decomposed layer, with A and the anchors reset, so that theta is the base whatever alpha."""
    part, adaptive = parts(layer, weight)
    part.base.copy_(base)
    adaptive.copy_(part.rest(part.base))
    part.anchor.copy_(adaptive)
    part.alpha_anchor.copy_(part.alpha)


class AttentiveAdaptive(nn.Module):
    """theta = sum_k a_k * G[..., k] + A: a bank G [..., N] of all clients' weights, with attention a [N] that is trained.

    At construction the bank is the layer's own weight, N = 1. Every use of theta reads the whole bank, N times the
    layer, and so does its gradient: cheapest where the bank's last axis moves slowest in memory.
    """

    bank: Tensor

    def __init__(self, base: Tensor, attention: float):
        super().__init__()
        self.initial = attention
        self.register_buffer("bank", base.detach().clone()[..., None])
        self.attention = nn.Parameter(torch.full((1,), attention, device=base.device))

    def receive_bank(self, bank: Tensor) -> None:
        """A new bank [..., N]; the attention starts again, A stays with the client."""
        self.bank = bank
        self.attention = nn.Parameter(torch.full((bank.shape[-1],), self.initial, device=bank.device))

    def forward(self, adaptive: Tensor) -> Tensor:
        return self._plus_bank(adaptive, 1)

    def right_inverse(self, theta: Tensor) -> Tensor:
        """theta -> A; at construction, where the bank is theta itself, A = (1 - attention) * theta."""
        return self._plus_bank(theta, -1)

    def _plus_bank(self, weight: Tensor, sign: int) -> Tensor:
        """weight + sign * sum_k a_k * G[..., k], in one pass over the bank."""
        # The convolution that uses the sum may round it to a lower precision, the sum itself is not made of rounded terms.
        with torch.autocast("cuda" if weight.is_cuda else "cpu", enabled=False):
            columns = self.bank.flatten(0, -2)
            return torch.addmv(weight.flatten(), columns, self.attention, alpha=sign).view_as(weight)
