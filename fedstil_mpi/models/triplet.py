"""Triplet loss within a batch (Schroff et al., CVPR 2015; Hermans et al., 2017), with hard or softly weighted triplets.

Soft weights follow AdaptiveReID (Luo et al., CVPR 2019): far positives and near negatives count more.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

OVERFLOW = math.log(torch.finfo(torch.float32).max)
"""The largest x with a finite exp(x) in float32."""
FALLBACK = 0.3
"""The hinge that stands in for a soft margin that overflows, as in the reference code."""


def triplet_loss(features: Tensor, targets: Tensor, *, margin: float, normalise: bool, hard: bool) -> Tensor:
    """The mean over all samples, each an anchor once: a scalar.

    features: float32 [n, F]; targets: int64 [n], who is on the image. An anchor's positives are all samples of its
    person, itself included; its negatives all others.
    normalise: distances are 1 - cosine; else squared Euclidean ones, without the root.
    hard: an anchor's farthest positive and nearest negative are compared; else weighted means over all of them.
    margin: for a positive distance a and a negative one b, above 0 the hinge max(0, margin + a - b); 0 the soft margin
    ln(1 + exp(a - b)), replaced by the hinge at 0.3 for a batch in which its float32 value overflows.
    Raises ValueError for a negative margin.
    """
    if margin < 0:
        raise ValueError(f"margin is {margin}; expected 0 (soft margin) or more")
    distance = cosine_distance(features) if normalise else squared_distance(features)
    same = targets[:, None] == targets
    positive, negative = (hardest if hard else weighted)(distance, same)
    gap = positive - negative
    if margin > 0:
        return hinge(gap, margin)
    return torch.where(gap.max() > OVERFLOW, hinge(gap, FALLBACK), F.softplus(gap).mean())


def hinge(gap: Tensor, margin: float) -> Tensor:
    """mean(max(0, margin + gap)): a scalar, from gap [n]."""
    return (margin + gap).clamp(min=0).mean()


def squared_distance(features: Tensor) -> Tensor:
    """|f_i - f_j|^2, [n, n]."""
    squares = (features**2).sum(1)
    return squares[:, None] + squares - 2 * features @ features.T


def cosine_distance(features: Tensor) -> Tensor:
    """1 - cosine of f_i and f_j, [n, n]."""
    unit = F.normalize(features, dim=1)
    return 1 - unit @ unit.T


def hardest(distance: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """Each anchor's farthest positive and nearest negative, [n] and [n]; an anchor without negatives has one far away."""
    return (distance * same).amax(1), (distance + 1e9 * same).amin(1)


def weighted(distance: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """Each anchor's mean positive and negative distance, weighted by how hard they are, [n] and [n].

    The weights are trained through, as published. Those of the negatives vanish where all distances are large.
    """
    return (
        (masked_softmax(distance, same) * distance).sum(1),
        (masked_softmax(-distance, ~same) * distance).sum(1),
    )


def masked_softmax(values: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the True places of each row, [n, n]; its sum stays a little below 1, and is 0 where none is True."""
    values = values * mask
    raised = torch.exp(values - values.amax(1, keepdim=True)) * mask
    return raised / (raised.sum(1, keepdim=True) + 1e-6)
