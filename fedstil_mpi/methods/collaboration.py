"""How much clients take from each other: by the quadratic programme of pFedGraph, by the first-order weights of FedFomo."""

import torch
import torch.nn.functional as F
from torch import Tensor


def collaboration_graph(moved_KP: Tensor, samples_K: Tensor, alpha: float) -> Tensor:
    """Weights [K, K]: row i minimises sum_j w_ij * (-cos(moved_i, moved_j)) + alpha * |w_i - p|^2 over the simplex.

    moved_KP: how far each client's weights are from where all began; samples_K: of which p are the shares. Completing the
    square, row i is the projection of p_j + cos(moved_i, moved_j) / 2 alpha. A client without samples is taken from by
    nobody, and itself, as long as it has not moved, has the shares. Weights that have diverged are like none.
    """
    counted = samples_K.nonzero()[:, 0]
    shares = (samples_K / samples_K.sum())[counted]
    unit_KP = F.normalize(moved_KP)
    cosines = (unit_KP @ unit_KP[counted].T).nan_to_num(0, 0, 0)
    nearest = project((shares + cosines / (2 * alpha)).double())
    return moved_KP.new_zeros(2 * samples_K.shape).index_copy(1, counted, nearest.to(moved_KP.dtype))


def project(rows: Tensor) -> Tensor:
    """The nearest point of the simplex to each row, float [n, K] (Held, Wolfe and Crowder, 1974).

    It is max(row - excess, 0) with the one excess that makes the sum 1: what the entries that stay positive, the largest
    ones, exceed it by on average.
    """
    largest = rows.sort(dim=1, descending=True).values
    excess = (largest.cumsum(1) - 1) / torch.arange(1, rows.shape[1] + 1, device=rows.device)
    positive = (largest > excess).sum(1, keepdim=True)
    return (rows - excess.gather(1, positive - 1)).clamp(min=0)


def first_order_weights(losses_K: Tensor, theta_KP: Tensor, own: int) -> Tensor:
    """w [K] of the client at place `own`: what each model gains it, max(0, loss of its own - loss), by the way to it.

    Scaled to a sum of 1; all 0 where none of the others has less loss on the client's images.
    """
    gains_K = (losses_K[own] - losses_K) / (theta_KP - theta_KP[own]).norm(dim=1)
    gains_K = gains_K.nan_to_num(0, 0, 0).clamp(min=0)
    return gains_K / gains_K.sum() if gains_K.any() else gains_K
