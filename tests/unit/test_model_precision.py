"""Layers that bfloat16 makes slower compute in float32, and are the same to everybody else."""

import torch

from fedstil_mpi.models.network import build
from fedstil_mpi.models.precision import StridedDepthwise

MOBILENET = {"num_classes": 4, "image_size": (128, 64), "split": "features.14", "last_stride": 2}


def test_only_strided_depthwise_layers_are_spared():
    tail = build("mobilenet_v2", precision="bfloat16", **MOBILENET).tail
    spared = [layer for layer in tail.modules() if isinstance(layer, StridedDepthwise)]
    assert [(layer.groups, layer.stride) for layer in spared] == [(576, (2, 2))]
    resnet = build("resnet18", num_classes=4, image_size=(64, 32), precision="bfloat16").tail
    assert not any(isinstance(layer, StridedDepthwise) for layer in resnet.modules())


def test_they_keep_their_names_and_their_arithmetic():
    exact, rounded = (
        build("mobilenet_v2", precision=precision, **MOBILENET).tail for precision in ("float32", "bfloat16")
    )
    assert list(exact.state_dict()) == list(rounded.state_dict())
    [name] = [name for name, layer in rounded.named_modules() if isinstance(layer, StridedDepthwise)]
    inputs = torch.randn(2, 576, 8, 4, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        outputs, others = (tail.get_submodule(name)(inputs) for tail in (rounded, exact))
    assert torch.equal(outputs, exact.get_submodule(name)(inputs.float()))
    assert others.dtype == torch.bfloat16
