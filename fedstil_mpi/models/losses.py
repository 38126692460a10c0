"""The losses of local training: classification, and likeness of images of the same person."""

import torch
import torch.nn.functional as F
from torch import Tensor


def smoothed_cross_entropy(scores: Tensor, targets: Tensor, epsilon: float, allowed: Tensor | None = None) -> Tensor:
    """Label-smoothed cross entropy, averaged over the batch: a scalar.

    scores: float [n, C]; targets: int64 [n], below C. The target distribution is 1 - epsilon on the true class plus
    epsilon / K on every class. K is C.
    allowed: bool [C]; the softmax and the smoothing then run over these classes only, K is their number, and the others
    get no gradient. Every target must be allowed: one that is not makes the loss infinite. torch has no such form.

    Gather form, -(1 - epsilon) log p_y - epsilon / K * sum_c log p_c: no [n, C] matrix of targets is built.
    """
    if allowed is None:
        return F.cross_entropy(scores, targets, label_smoothing=epsilon)
    log_p = F.log_softmax(scores.masked_fill(~allowed, -torch.inf), dim=1)
    spread = log_p.masked_fill(~allowed, 0.0).sum(dim=1) / allowed.sum()
    correct = log_p.gather(1, targets[:, None]).squeeze(1)
    return -((1 - epsilon) * correct + epsilon * spread).mean()


def supervised_contrast(features: Tensor, pids: Tensor, temperature: float) -> Tensor:
    """Supervised contrastive loss (Khosla et al., NeurIPS 2020, their L_out) of a batch: a scalar.

    features: float [n, F], not normalised, compared by cosine as retrieval does; pids: int64 [n]. Each sample is
    drawn to the others of its person and away from all the rest; a sample whose person is there only once has nothing
    to be drawn to and is no anchor. 0 where no person is there twice.
    """
    unit = F.normalize(features.float(), dim=1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    log_p = F.log_softmax((unit @ unit.T / temperature).masked_fill(itself, -torch.inf), dim=1)
    same = (pids[:, None] == pids[None, :]) & ~itself
    anchors = same.any(1)
    drawn = log_p.masked_fill(~same, 0.0).sum(1) / same.sum(1).clamp(min=1)
    return -drawn.sum() / anchors.sum().clamp(min=1)
