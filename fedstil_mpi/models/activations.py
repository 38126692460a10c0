"""How much memory an image takes on its way through a network."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Passing(NamedTuple):
    """Bytes that one image takes on its way through a module."""

    kept: int
    """With gradients: the outputs of all layers."""
    peak: int
    """Without: the largest input and output of a layer."""


@torch.no_grad()
def measure_passing(module: nn.Module, shape: Sequence[int]) -> Passing:
    """Of a module on the device meta, for inputs [n, *shape]."""
    layers: list[tuple[int, int]] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        layers.append((inputs[0].nbytes // 2, output.nbytes // 2))

    hooks = [layer.register_forward_hook(note) for layer in module.modules() if not list(layer.children())]
    module(torch.empty(2, *shape, device="meta"))
    for hook in hooks:
        hook.remove()
    return Passing(sum(out for _, out in layers), max((before + out for before, out in layers), default=0))
