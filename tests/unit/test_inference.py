"""The stem's inference form computes what the stem does."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from fedstil_mpi.launch import precision
from fedstil_mpi.models.network import Stem, build, network_state


def plainly(stem: Stem, images: Tensor) -> Tensor:
    return nn.Sequential.forward(stem, images)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "vit_b_32"])
def test_outputs_are_those_of_the_layers(name):
    stem = build(name, num_classes=4, image_size=(64, 32), seed=1).stem
    for module in stem.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    images = torch.randn(3, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    expected = plainly(stem, images)
    torch.testing.assert_close(stem(images), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    assert stem(images).is_contiguous()


def small(precision: str = "float32") -> Stem:
    return Stem({"conv": nn.Conv2d(3, 4, 3), "norm": nn.BatchNorm2d(4)}, precision)


def test_a_stem_that_arrives_later_is_used():
    stem, other, images = small(), small(), torch.randn(2, 3, 8, 8)
    stem(images)
    stem.load_state_dict(other.state_dict())
    assert torch.equal(stem(images), other(images))
    stem.norm.running_mean.copy_(torch.ones(4))
    torch.testing.assert_close(stem(images), plainly(stem, images))


def test_the_form_is_no_part_of_the_model():
    network = build("resnet18", num_classes=4, image_size=(32, 16))
    before = set(network_state(network))
    network.stem(torch.randn(1, 3, 32, 16))
    assert set(network_state(network)) == before


def test_what_torch_fx_cannot_follow_is_used_as_it_is():
    class Capricious(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images if images.mean() > 0 else -images

    stem, images = Stem({"norm": nn.BatchNorm2d(3), "own": Capricious()}), torch.randn(2, 3, 4, 4)
    assert torch.equal(stem(images), plainly(stem, images))


def test_bfloat16_gives_float32_nearby():
    stem, images = small("bfloat16"), torch.randn(2, 3, 8, 8)
    rounded, exact = stem(images), plainly(stem, images)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.03, atol=0.03)


@pytest.mark.parametrize(
    ("flags", "expected"), [({"avx2"}, "float32"), ({"avx512_bf16"}, "bfloat16"), ({"fp", "bf16"}, "bfloat16")]
)
def test_auto_asks_the_processor(flags, expected, monkeypatch):
    monkeypatch.setattr(precision, "cpu_flags", lambda: flags)
    alone = SimpleNamespace(any_rank=lambda yes: yes)
    assert precision.settle(alone, "auto", "cpu") == expected
    assert precision.settle(alone, "float32", "cpu") == "float32"
