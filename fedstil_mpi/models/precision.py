"""What a network computes in: float32, or bfloat16 where that is fast. Weights are float32 either way."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """A context in which convolutions and products run in this precision, "float32" or "bfloat16", on the device."""
    if precision == "float32" or device.type == "meta":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


class StridedDepthwise(nn.Conv2d):
    """A depthwise convolution with a stride, which computes in float32 on a CPU whatever the context.

    torch's backward pass of it in bfloat16 takes some fifty times as long there, more than all the rest of a MobileNet's
    last blocks (bench/speed.md, PKU-Reid).
    """

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.device.type != "cpu":
            return super().forward(inputs)
        with torch.autocast("cpu", enabled=False):
            return super().forward(inputs.float())


def keep_from_slow_kernels(stages: nn.Module) -> None:
    """Make those layers compute in float32, in place, that are slower in bfloat16. Names and weights stay."""
    for layer in stages.modules():
        if type(layer) is nn.Conv2d and layer.groups == layer.in_channels > 1 and layer.stride != (1, 1):
            layer.__class__ = StridedDepthwise
