"""What separates a camera's pictures of a person from another camera's, and a metric that minds it less.

Two cameras show a person differently in much the same way, whoever it is: light, height and side change features along few
directions. Where the same people are known from two cameras, these directions can be read off their differences. With
S = mean of d d^T over differences d, and s the mean of the eigenvalues that S has, features are multiplied by
(1 + S / (shrinkage s))^(-1/2): within-class covariance normalisation (Hatch, Kajarekar and Stolcke, Interspeech 2006), with
differences across cameras alone, shrunk to the cosine. It takes no training, and holds for people nobody has met.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize


class Metric(NamedTuple):
    """Multiplies features of length 1: by `gains_R` along R orthonormal directions, by 1 across them."""

    directions_RF: Tensor  # noqa: N815
    gains_R: Tensor  # noqa: N815
    """In ]0, 1]."""

    @classmethod
    def across_cameras(cls, differences_DF: Tensor, shrinkage: float) -> "Metric":
        """differences_DF: between features of length 1 of the same people at two cameras, float [D, F], at least one; any device.

        shrinkage: above 0; the larger, the nearer to the cosine.
        """
        _, values, directions_RF = torch.linalg.svd(differences_DF, full_matrices=False)
        share = values.square() / values.square().mean().clamp(min=torch.finfo(values.dtype).tiny)
        return cls(directions_RF, (shrinkage / (shrinkage + share)).sqrt())

    def __call__(self, features_NF: Tensor) -> Tensor:
        """float [N, F] -> as it; compared by cosine, as before."""
        unit_NF = normalize(features_NF, dim=1)
        along_NR = unit_NF @ self.directions_RF.T
        return unit_NF - (along_NR * (1 - self.gains_R)) @ self.directions_RF


def differences(here: Tensor, pids_here: Tensor, there: Tensor, pids_there: Tensor) -> Tensor:
    """Of every pair of features [n, F] and [m, F] that show the same person: [pairs, F]. pids: int64 [n] and [m]."""
    mine, theirs = (pids_here[:, None] == pids_there[None, :]).nonzero().unbind(1)
    return normalize(here, dim=1)[mine] - normalize(there, dim=1)[theirs]
