"""Triplet loss within a batch, of the hardest triplets (Schroff et al., CVPR 2015; Hermans et al., 2017)."""

import torch.nn.functional as F
from torch import Tensor


def triplet_loss(features: Tensor, targets: Tensor, margin: float) -> Tensor:
    """mean(max(0, margin + a - b)) over all samples, each an anchor once: a scalar.

    features: float32 [n, F]; targets: int64 [n], who is on the image. a: cosine distance of an anchor's farthest
    positive, which are all samples of its person, itself included; b: of its nearest negative, which are all others.
    """
    distance = cosine_distance(features)
    same = targets[:, None] == targets
    positive, negative = hardest(distance, same)
    return (margin + (positive - negative)).clamp(min=0).mean()


def cosine_distance(features: Tensor) -> Tensor:
    """1 - cosine of f_i and f_j, [n, n]."""
    unit = F.normalize(features, dim=1)
    return 1 - unit @ unit.T


def hardest(distance: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """Each anchor's farthest positive and nearest negative, [n] and [n]; an anchor without negatives has one far away."""
    return (distance * same).amax(1), (distance + 1e9 * same).amin(1)
