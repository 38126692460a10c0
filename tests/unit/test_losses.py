import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedstil_mpi.models.losses import smoothed_cross_entropy, supervised_contrast
from support.golden_files import golden


def batch(classes: int = 7, size: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(size, classes, generator=generator)
    return scores.requires_grad_(), torch.randint(classes, (size,), generator=generator)


@pytest.mark.parametrize("path", golden("d_smooth_ce"), ids=lambda path: path.stem)
def test_golden_loss_and_gradient(path):
    """The file has another number of smoothed classes than the scores', too, which nothing uses."""
    case = np.load(path, allow_pickle=False)
    for e, epsilon in enumerate(case["epsilons"]):
        scores = torch.from_numpy(case["score"]).requires_grad_()
        assert case["num_classes_arg"][0] == scores.shape[1]
        loss = smoothed_cross_entropy(scores, torch.from_numpy(case["target"]), float(epsilon))
        (gradient,) = torch.autograd.grad(loss, scores)
        np.testing.assert_allclose(loss.item(), case["loss"][e, 0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(gradient, case["grad"][e, 0], rtol=1e-3, atol=1e-6)


def test_equal_scores_cost_the_logarithm_of_the_number_of_classes():
    scores, targets = torch.zeros(3, 8), torch.tensor([0, 3, 7])
    assert smoothed_cross_entropy(scores, targets, 0.1).item() == pytest.approx(np.log(8))


def test_allowed_equals_a_narrower_classifier():
    scores, _ = batch(classes=9)
    kept = torch.tensor([1, 2, 5, 8])
    narrow_targets = torch.tensor([0, 3, 3, 1, 2])
    allowed = torch.zeros(9, dtype=torch.bool).index_fill(0, kept, True)
    loss = smoothed_cross_entropy(scores, kept[narrow_targets], 0.1, allowed=allowed)
    (gradient,) = torch.autograd.grad(loss, scores)

    narrow = scores.detach()[:, kept].requires_grad_()
    narrow_loss = F.cross_entropy(narrow, narrow_targets, label_smoothing=0.1)
    (narrow_gradient,) = torch.autograd.grad(narrow_loss, narrow)
    torch.testing.assert_close(loss, narrow_loss)
    torch.testing.assert_close(gradient[:, kept], narrow_gradient)
    assert not gradient[:, ~allowed].any()


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.5])
def test_allowing_every_class_agrees_with_torch(epsilon):
    scores, targets = batch()
    everything = torch.ones(scores.shape[1], dtype=torch.bool)
    found = smoothed_cross_entropy(scores, targets, epsilon, allowed=everything)
    torch.testing.assert_close(found, F.cross_entropy(scores, targets, label_smoothing=epsilon))
    torch.testing.assert_close(found, smoothed_cross_entropy(scores, targets, epsilon))


def test_forbidden_target_shows():
    scores, _ = batch()
    allowed = torch.tensor([True] * 6 + [False])
    assert smoothed_cross_entropy(scores, torch.full((5,), 6), 0.1, allowed=allowed).item() == float("inf")


# -- contrast ----------------------------------------------------------------------------------------------------------


def labelled_features(*pids: int) -> tuple[Tensor, Tensor]:
    features = torch.randn(len(pids), 6, generator=torch.Generator().manual_seed(1))
    return features.requires_grad_(), torch.tensor(pids)


def contrast_by_hand(features: Tensor, pids: Tensor, temperature: float) -> float:
    """The paper's formula, one anchor and one pair at a time."""
    unit = F.normalize(features, dim=1)
    losses = []
    for i in range(len(unit)):
        same = [j for j in range(len(unit)) if j != i and pids[j] == pids[i]]
        if same:
            others = torch.stack([unit[i] @ unit[j] / temperature for j in range(len(unit)) if j != i])
            losses.append(-sum(unit[i] @ unit[j] / temperature - others.logsumexp(0) for j in same) / len(same))
    return float(sum(losses)) / len(losses)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("pids", [(4, 4), (4, 4, 7), (4, 7, 4, 7, 7, 9)])
def test_contrast_is_the_formula_of_the_paper(pids, temperature):
    features, labels = labelled_features(*pids)
    features = features.detach()
    loss = supervised_contrast(features, labels, temperature)
    assert loss.item() == pytest.approx(contrast_by_hand(features, labels, temperature), rel=1e-5)


def test_contrast_of_strangers_is_nothing_and_harmless():
    features, pids = labelled_features(1, 2, 3)
    loss = supervised_contrast(features, pids, 0.1)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(features.grad, torch.zeros_like(features))


def test_contrast_knows_directions_only():
    features, pids = labelled_features(4, 7, 4, 7)
    lengths = torch.tensor([[0.5], [2.0], [3.0], [10.0]])
    torch.testing.assert_close(
        supervised_contrast(features, pids, 0.1), supervised_contrast(features * lengths, pids, 0.1)
    )


def test_contrast_draws_a_person_together_and_strangers_apart():
    features, pids = labelled_features(4, 4, 7, 7)
    optimizer = torch.optim.SGD([features], 0.5)
    for _ in range(200):
        optimizer.zero_grad()
        supervised_contrast(features, pids, 0.1).backward()
        optimizer.step()
    unit = F.normalize(features.detach(), dim=1)
    likeness = unit @ unit.T
    assert min(likeness[0, 1], likeness[2, 3]) > likeness[:2, 2:].max() + 0.5
