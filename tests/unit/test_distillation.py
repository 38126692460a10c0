import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fedstil_mpi.models.distillation import distillation_loss, sigmoid_distillation_loss
from support.golden_files import golden

cases = pytest.mark.parametrize("path", golden("k_distill"), ids=lambda path: path.stem)


def scores(seed: int, classes: int = 5) -> Tensor:
    return 2 * torch.randn(4, classes, generator=torch.Generator().manual_seed(seed))


def gradient(loss, student: Tensor) -> Tensor:
    student = student.clone().requires_grad_()
    return torch.autograd.grad(loss(student), student)[0]


@cases
def test_golden_temperature_distillation(path):
    case = np.load(path, allow_pickle=False)
    student, teacher = torch.from_numpy(case["student"]), torch.from_numpy(case["teacher"])
    for t, temperature in enumerate(case["temperatures"].tolist()):
        loss = distillation_loss(student, teacher, temperature)
        found = gradient(lambda s, at=temperature: distillation_loss(s, teacher, at), student)
        np.testing.assert_allclose(loss.item(), case["loss"][t], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found, case["grad"][t], rtol=1e-3, atol=1e-6)


@cases
def test_golden_sigmoid_distillation(path):
    case = np.load(path, allow_pickle=False)
    old = int(case["icarl_old_classes"])
    student, teacher = (torch.from_numpy(case[name])[:, :old] for name in ("student", "teacher"))
    loss = sigmoid_distillation_loss(student, teacher)
    np.testing.assert_allclose(loss.item(), case["icarl_distill_loss"], rtol=1e-4, atol=1e-5)


def test_temperature_distillation_by_hand():
    """Teacher (3/4, 1/4) at temperature 1, student undecided: 3/4 ln 3/2 + 1/4 ln 1/2."""
    teacher = torch.tensor([[math.log(3), 0.0]])
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    student = torch.zeros(1, 2)
    assert distillation_loss(student, teacher, 1.0).item() == pytest.approx(divergence, rel=1e-5)
    assert distillation_loss(student, 3 * teacher, 3.0).item() == pytest.approx(9 * divergence, rel=1e-5)


@pytest.mark.parametrize(
    "loss",
    [lambda s, t: distillation_loss(s, t, 1.0), lambda s, t: distillation_loss(s, t, 4.0), sigmoid_distillation_loss],
)
def test_a_student_with_the_teachers_logits_is_left_alone(loss):
    teacher = scores(1)
    assert gradient(lambda s: loss(s, teacher), teacher).abs().max() < 1e-6
    assert loss(scores(2), teacher) > loss(teacher, teacher)
    assert gradient(lambda s: loss(s, teacher), scores(2)).abs().max() > 1e-2


def test_only_differences_of_scores_matter_to_a_softmax():
    student, teacher = scores(1), scores(2)
    value = distillation_loss(student, teacher, 2.0)
    torch.testing.assert_close(distillation_loss(student + 7, teacher - 3, 2.0), value)
    assert (sigmoid_distillation_loss(student + 7, teacher - 3) - sigmoid_distillation_loss(student, teacher)).abs() > 1


def test_the_factor_keeps_gradients_alike_at_high_temperatures():
    """For T -> infinity the gradient tends to (centred student - centred teacher) / (C * n)."""
    student, teacher = scores(1), scores(2)
    found = gradient(lambda s: distillation_loss(s, teacher, 1000.0), student)
    centred = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    torch.testing.assert_close(found, centred / student.numel(), rtol=1e-2, atol=1e-3)
