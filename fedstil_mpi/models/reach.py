"""Kernels no larger than what they reach: weights that meet only padding, whatever the image, are cut off.

On a map one pixel wide, a 3x3 kernel has two columns that meet nothing but zeros. They never get a gradient, and yet
are multiplied, decayed, mixed and sent.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def cut_to_reach(stages: Iterable[nn.Module], image_size: tuple[int, int]) -> None:
    """Cut the kernels of these stages, which follow each other, in place, for images of this height and width.

    What the stages compute stays the same. What an axis cannot do without padding its two sides differently stays whole.
    """
    stages = list(stages)
    reference = next((tensor for stage in stages for tensor in stage.parameters()), torch.empty(0))
    outputs = torch.zeros(1, 3, *image_size, device=reference.device)
    modes = {module: module.training for stage in stages for module in stage.modules()}
    hooks = [module.register_forward_pre_hook(_cut) for module in modes if isinstance(module, nn.Conv2d)]
    for stage in stages:
        outputs = stage.eval()(outputs)
    for hook in hooks:
        hook.remove()
    for module, mode in modes.items():
        module.training = mode


def _cut(layer: nn.Conv2d, inputs: tuple[Tensor]) -> None:
    """A hook: cut the kernel of a convolution that is about to be called on [n, c, h, w]."""
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str) or layer.dilation != (1, 1):
        return
    for axis in (0, 1):
        size, kernel = inputs[0].shape[2 + axis], layer.kernel_size[axis]
        stride, padding = layer.stride[axis], layer.padding[axis]
        first, count = _reached(size, kernel, stride, padding)
        outputs = _outputs(size, kernel, stride, padding)
        if count == kernel or padding < first or _outputs(size, count, stride, padding - first) != outputs:
            continue
        weight = layer.weight
        layer.weight = nn.Parameter(weight.narrow(2 + axis, first, count).clone(), weight.requires_grad)
        layer.kernel_size = _with(layer.kernel_size, axis, count)
        layer.padding = _with(layer.padding, axis, padding - first)


def _outputs(size: int, kernel: int, stride: int, padding: int) -> int:
    return (size + 2 * padding - kernel) // stride + 1


def _reached(size: int, kernel: int, stride: int, padding: int) -> tuple[int, int]:
    """The first place of a kernel that meets a pixel of a map of this size, and how many do from there on; all if none does."""
    starts = [output * stride - padding for output in range(_outputs(size, kernel, stride, padding))]
    places = [place for place in range(kernel) if any(0 <= start + place < size for start in starts)]
    return (places[0], places[-1] - places[0] + 1) if places else (0, kernel)


def _with(pair: tuple[int, ...], axis: int, value: int) -> tuple[int, int]:
    return (value, pair[1]) if axis == 0 else (pair[0], value)
