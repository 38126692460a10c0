import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedstil_mpi.models.triplet import cosine_distance, squared_distance, triplet_loss
from support.golden_files import golden

cases = pytest.mark.parametrize("path", golden("e_triplet"), ids=lambda path: path.stem)


def batch(*pids: int, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    features = spread * torch.randn(len(pids), 6, generator=torch.Generator().manual_seed(3))
    return features, torch.tensor(pids)


@cases
def test_golden_values_and_gradients_in_all_modes(path):
    case = np.load(path, allow_pickle=False)
    targets = torch.from_numpy(case["target"])
    for mode, (normalise, hard, margin) in enumerate(case["modes"].tolist()):
        features = torch.from_numpy(case["feature"]).requires_grad_()
        loss = triplet_loss(features, targets, margin=margin, normalise=bool(normalise), hard=bool(hard))
        (gradient,) = torch.autograd.grad(loss, features)
        np.testing.assert_allclose(loss.item(), case["loss"][mode], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(gradient, case["grad"][mode], rtol=1e-3, atol=1e-6)


@cases
def test_golden_distances(path):
    case = np.load(path, allow_pickle=False)
    features = torch.from_numpy(case["feature"])
    np.testing.assert_allclose(squared_distance(features), case["sqdist"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(cosine_distance(features), case["cosdist"], rtol=1e-4, atol=1e-5)


def test_hard_triplets_by_hand():
    """On a line at 0, 1 (person 1) and 3 (person 2): anchors see a - b = 1 - 9, 1 - 4 and 0 - 4."""
    features, targets = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([1, 1, 2])
    gaps = [-8.0, -3.0, -4.0]

    def loss(margin: float) -> float:
        return triplet_loss(features, targets, margin=margin, normalise=False, hard=True).item()

    assert loss(3.5) == pytest.approx((0.5 + 0.0 + 0.0) / 3)
    assert loss(10.0) == pytest.approx(sum(10 + gap for gap in gaps) / 3)
    assert loss(0.0) == pytest.approx(sum(math.log1p(math.exp(gap)) for gap in gaps) / 3, rel=1e-5)


def test_soft_weights_by_hand():
    """Anchor at 0 of person 1 with a positive at 1 and negatives at 1 and sqrt(2): squared distances 0, 1 | 1, 2."""
    features = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    targets = torch.tensor([1, 1, 2, 2])
    # By symmetry every anchor has the same distances.
    positive = math.e / (1 + math.e)
    negative = (math.exp(-1) + 2 * math.exp(-2)) / (math.exp(-1) + math.exp(-2))
    loss = triplet_loss(features, targets, margin=5.0, normalise=False, hard=False)
    assert loss.item() == pytest.approx(5 + positive - negative, rel=1e-5)


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_order_turns_and_shifts_do_not_matter(margin, normalise, hard):
    features, targets = batch(1, 1, 2, 2, 3, 3, 3)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return triplet_loss(x, y, margin=margin, normalise=normalise, hard=hard)

    value = loss(features, targets)
    order = torch.tensor([4, 0, 6, 2, 1, 5, 3])
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))[0]
    torch.testing.assert_close(loss(features[order], targets[order]), value)
    torch.testing.assert_close(loss(features @ turn, targets + 9), value)
    torch.testing.assert_close(loss(features * 3 if normalise else features + 3, targets), value, rtol=1e-4, atol=1e-5)


def test_separated_people_cost_nothing():
    features = F.one_hot(torch.tensor([0, 0, 1, 1, 2])).float()
    for hard in (True, False):
        loss = triplet_loss(features, torch.tensor([4, 4, 7, 7, 9]), margin=0.3, normalise=True, hard=hard)
        assert loss.item() == 0


def test_the_soft_margin_gives_way_where_it_overflows():
    """One anchor beyond exp's range puts the whole batch under the hinge at 0.3; finite gradients on both sides."""
    targets = torch.tensor([1, 1, 2])

    def loss(far: float) -> tuple[float, Tensor]:
        features = torch.tensor([[0.0], [far], [0.5]], requires_grad=True)
        value = triplet_loss(features, targets, margin=0.0, normalise=False, hard=True)
        value.backward()
        return value.item(), features.grad

    for far, soft in ((math.sqrt(88.0), True), (math.sqrt(90.0), False)):
        gaps = [far**2 - 0.25, far**2 - (far - 0.5) ** 2, -0.25]
        expected = [math.log1p(math.exp(g)) if soft else max(0.0, 0.3 + g) for g in gaps]
        value, gradient = loss(far)
        assert value == pytest.approx(sum(expected) / 3, rel=1e-5)
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0


def test_one_person_alone_gives_no_loss_under_hard_mining():
    features, targets = batch(5, 5, 5)
    assert triplet_loss(features, targets, margin=0.3, normalise=False, hard=True).item() == 0


def test_a_negative_margin_is_refused():
    with pytest.raises(ValueError, match="margin is -1"):
        triplet_loss(*batch(1, 2), margin=-1.0, normalise=False, hard=True)
