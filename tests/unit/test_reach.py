"""Kernels cut to what they reach: what they compute stays the same."""

import copy
from itertools import product

import pytest
import torch
from torch import nn

from fedstil_mpi.models.network import build
from fedstil_mpi.models.reach import cut_to_reach


def shapes(stage: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(layer.weight.shape[2:]) for layer in stage.modules() if isinstance(layer, nn.Conv2d)]


def test_kernels_on_a_map_one_pixel_wide_by_hand():
    stages = [nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1, groups=4), nn.Conv2d(4, 2, 1)]
    cut_to_reach(stages, (4, 2))  # 4x2, then 2x1
    assert [shapes(stage) for stage in stages] == [[(3, 2)], [(3, 1)], [(1, 1)]]


def test_only_weights_without_any_gradient_are_cut():
    cut_kernels = 0
    for size, kernel, stride, padding in product(range(1, 6), range(1, 8), (1, 2, 3), range(4)):
        if size + 2 * padding < kernel:
            continue
        whole = nn.Conv2d(3, 2, (kernel, 1), (stride, 1), (padding, 0))
        cut = copy.deepcopy(whole)
        cut_to_reach([cut], (size, 1))
        whole.double(), cut.double()
        images = torch.randn(2, 3, size, 1).double()
        ours, theirs = cut(images), whole(images)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        ours.sum().backward()
        theirs.sum().backward()
        assert cut.weight.grad.count_nonzero() == whole.weight.grad.count_nonzero()
        cut_kernels += cut.weight.numel() < whole.weight.numel()
    assert cut_kernels > 50


def test_other_paddings_and_dilations_stay_whole():
    stages = [
        nn.Conv2d(3, 3, 3, padding="same"),
        nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(3, 3, 3, padding=2, dilation=2),
    ]
    cut_to_reach(stages, (1, 1))
    assert [shapes(stage) for stage in stages] == [[(3, 3)]] * 3


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_training_is_the_same_but_for_the_order_of_sums(name, monkeypatch):
    def trained() -> tuple[torch.Tensor, int]:
        network = build(name, num_classes=8, image_size=(32, 16), last_stride=2, seed=3)
        images = torch.randn(6, 3, 32, 16, generator=torch.Generator().manual_seed(1))
        optimizer = torch.optim.SGD(network.tail.trunk.parameters(), 1e-3, momentum=0.9, weight_decay=1e-4)
        torch.manual_seed(2)
        for _ in range(2):
            features = network.tail.train().features(network.stem(images))
            optimizer.zero_grad()
            (features * torch.arange(6)[:, None]).sum().backward()
            optimizer.step()
        return features, sum(parameter.numel() for parameter in network.tail.parameters())

    ours, fewer = trained()
    monkeypatch.setattr("fedstil_mpi.models.network.cut_to_reach", lambda stages, size: None)
    theirs, more = trained()
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert fewer < more
