"""Lifelong metrics from the accuracy matrix: what a client knows in the end, and what it has lost on the way.

`accuracy` is float [..., stages, tasks]: entry [t, i] is the accuracy on task i after training task t, both from 0, nan
where it was not evaluated. It holds the stages reached so far, so its last row is *now*; tasks up to that row's index
are *seen*, those before it are *old*. Leading axes, for example clients, are kept. A mean leaves out tasks that have no
value and is nan where none has one.
"""

import numpy as np

METRICS = ("rank1", "rank3", "rank5", "rank10", "map", "counted")
"""What is measured of every client and task at every evaluation, as fractions; counted: the share of queries that the
others rest on."""


def average_accuracy(accuracy: np.ndarray) -> np.ndarray:
    """Mean accuracy over the seen tasks, now. [...], the leading axes."""
    stages = accuracy.shape[-2]
    return mean_of_known(accuracy[..., -1, :stages])


def forgetting(accuracy: np.ndarray) -> np.ndarray:
    """Mean over the old tasks of (best accuracy at any earlier stage - accuracy now). [...], the leading axes.

    The definition of Chaudhry et al. 2018 (Riemannian Walk for Incremental Learning, ECCV): *now* is no candidate for
    the best, so a task that is better than ever counts as negative forgetting. nan after the first task, when
    nothing is old yet.
    """
    old = accuracy.shape[-2] - 1
    best = np.fmax.reduce(accuracy[..., :-1, :old], axis=-2, initial=-np.inf)
    best = np.where(np.isinf(best), np.nan, best)
    return mean_of_known(best - accuracy[..., -1, :old])


def backward_transfer(accuracy: np.ndarray) -> np.ndarray:
    """Mean over the old tasks of (accuracy now - accuracy right after training that task). [...], the leading axes.

    Lopez-Paz and Ranzato 2017 (Gradient Episodic Memory, NeurIPS). nan after the first task.
    """
    old = accuracy.shape[-2] - 1
    learned = np.diagonal(accuracy, axis1=-2, axis2=-1)[..., :old]
    return mean_of_known(accuracy[..., -1, :old] - learned)


def mean_of_known(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis without the nans; nan, and no warning, where nothing is left."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.sum(values, axis=-1, where=known) / known.sum(axis=-1)
