"""How the cameras' world changes from task to task: several kinds of drift, each with a strength of its own.

Nothing has changed yet in the first task, whatever the kind.
"""

from typing import NamedTuple

import numpy as np

from fedstil_mpi.util import seeding


class Drifts(NamedTuple):
    """How far each kind has come: float32, one number a task or, after `at`, one a picture or person. 0: not at all."""

    evening: np.ndarray
    """0: day, 1: evening."""
    haze: np.ndarray
    """Optical depth of the air between person and camera."""
    crowd: np.ndarray
    """Share of otherwise clear views that the crowd blocks."""
    winter: np.ndarray
    """Share of people in winter clothes."""
    wear: np.ndarray
    """0: cameras as good as new, 1: worn."""

    def at(self, tasks: list[int]) -> "Drifts":
        """Those of the given tasks, repeats included."""
        return Drifts(*(kind[tasks] for kind in self))


def progress(course: str, tasks: int) -> np.ndarray:
    """How far drifts have come in each task, 0 to 1: float64 [tasks].

    gradual: evenly, from the first task to the last; sudden: all of it halfway through; recurring: there and back, from
    each task to the next.
    """
    task = np.arange(tasks)
    if course == "sudden":
        return np.where(2 * task >= max(tasks, 2), 1.0, 0.0)
    if course == "recurring":
        return task % 2.0
    return task / max(tasks - 1, 1)


def weather(seed: int, tasks: int) -> np.ndarray:
    """How bad it is in each task, float64 [tasks]: clear at first, then drawn for every task, 0 to 1."""
    drawn = seeding.generator(seed, "synthetic", "weather").random(tasks)
    drawn[0] = 0
    return drawn
