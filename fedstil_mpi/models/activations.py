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
    """Measure a module on the device meta, for inputs [n, *shape]."""
    layers: list[tuple[int, int]] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        layers.append((inputs[0].nbytes // 2, output.nbytes // 2 if isinstance(output, Tensor) else _attended(output)))

    hooks = [layer.register_forward_hook(note) for layer in module.modules() if _is_leaf(layer)]
    module(torch.empty(2, *shape, device="meta"))
    for hook in hooks:
        hook.remove()
    return Passing(sum(out for _, out in layers), max((before + out for before, out in layers), default=0))


def _is_leaf(layer: nn.Module) -> bool:
    """torch's attention uses its parts' weights and never calls them."""
    return isinstance(layer, nn.MultiheadAttention) or not list(layer.children())


def _attended(output: tuple[Tensor, ...]) -> int:
    """Queries, keys, values, what they select, and its projection."""
    return 5 * output[0].nbytes // 2
