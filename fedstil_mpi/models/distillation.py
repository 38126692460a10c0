"""Distillation: a model is taught to answer as another one does, or as it did itself at an earlier time."""

import torch.nn.functional as F
from torch import Tensor


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), averaged over the batch: a scalar.

    student, teacher: scores, float32 [n, C]. The factor keeps gradients as large as those of a cross entropy, whatever
    the temperature (Hinton et al., 2015).
    """
    log_student, log_teacher = (F.log_softmax(scores / temperature, dim=1) for scores in (student, teacher))
    return temperature**2 * F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)


def sigmoid_distillation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Binary cross entropy of the student's scores against sigmoid(teacher), averaged over all entries: a scalar.

    student, teacher: scores, float32 [n, C]; every class is a question of its own (iCaRL, Rebuffi et al., CVPR 2017).
    """
    return F.binary_cross_entropy_with_logits(student, teacher.sigmoid())
