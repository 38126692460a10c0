import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedstil_mpi.models.triplet import cosine_distance, triplet_loss
from support.golden_files import golden

cases = pytest.mark.parametrize("path", golden("e_triplet"), ids=lambda path: path.stem)


def batch(*pids: int, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    features = spread * torch.randn(len(pids), 6, generator=torch.Generator().manual_seed(3))
    return features, torch.tensor(pids)


@cases
def test_golden_values_and_gradients(path):
    """The file has other modes, too: soft weights, squared distances and the soft margin, which nothing uses."""
    case = np.load(path, allow_pickle=False)
    targets = torch.from_numpy(case["target"])
    used = [mode for mode, (cosine, hard, margin) in enumerate(case["modes"].tolist()) if cosine and hard and margin]
    assert used
    for mode in used:
        features = torch.from_numpy(case["feature"]).requires_grad_()
        loss = triplet_loss(features, targets, case["modes"][mode][2].item())
        (gradient,) = torch.autograd.grad(loss, features)
        np.testing.assert_allclose(loss.item(), case["loss"][mode], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(gradient, case["grad"][mode], rtol=1e-3, atol=1e-6)


@cases
def test_golden_distances(path):
    case = np.load(path, allow_pickle=False)
    np.testing.assert_allclose(
        cosine_distance(torch.from_numpy(case["feature"])), case["cosdist"], rtol=1e-4, atol=1e-5
    )


def test_hard_triplets_by_hand():
    """At 0, 60 (person 1) and 180 degrees (person 2): anchors see a - b = 1/2 - 2, 1/2 - 3/2 and 0 - 3/2."""
    angles = torch.deg2rad(torch.tensor([0.0, 60.0, 180.0]))
    features, targets = torch.stack([angles.cos(), angles.sin()], 1), torch.tensor([1, 1, 2])
    assert triplet_loss(features, targets, 1.25).item() == pytest.approx(0.25 / 3, rel=1e-5)
    assert triplet_loss(features, targets, 2.0).item() == pytest.approx((0.5 + 1.0 + 0.5) / 3, rel=1e-5)


def test_order_turns_and_lengths_do_not_matter():
    features, targets = batch(1, 1, 2, 2, 3, 3, 3)
    value = triplet_loss(features, targets, 0.3)
    order = torch.tensor([4, 0, 6, 2, 1, 5, 3])
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))[0]
    torch.testing.assert_close(triplet_loss(features[order], targets[order], 0.3), value)
    torch.testing.assert_close(triplet_loss(features @ turn, targets + 9, 0.3), value)
    torch.testing.assert_close(triplet_loss(features * 3, targets, 0.3), value, rtol=1e-4, atol=1e-5)


def test_separated_people_cost_nothing():
    features = F.one_hot(torch.tensor([0, 0, 1, 1, 2])).float()
    assert triplet_loss(features, torch.tensor([4, 4, 7, 7, 9]), 0.3).item() == 0


def test_one_person_alone_gives_no_loss():
    assert triplet_loss(*batch(5, 5, 5), 0.3).item() == 0
