"""Which task of its stream a client is at: it moves along by being drawn for rounds. Tasks count from 0."""

import numpy as np


def task_of_draw(draw: int, per_task: int, tasks: int) -> int:
    """The 0-based task a client trains when it is drawn for the `draw`-th time (from 1); it stays on its last task."""
    return min((draw - 1) // per_task, tasks - 1)


def tasks_of_draws(draws: np.ndarray, per_task: int, tasks: int) -> np.ndarray:
    """The same of many clients, int64 [n]."""
    return np.minimum((draws - 1) // per_task, tasks - 1)


def task_begins(draw: int, per_task: int, tasks: int) -> bool:
    """Whether the `draw`-th draw (from 1) is a client's first on its task."""
    return (draw - 1) % per_task == 0 and draw <= per_task * tasks


def task_ends(draw: int, per_task: int, tasks: int) -> bool:
    """Whether the `draw`-th draw (from 1) is a client's last on its task; the last task never ends."""
    return task_begins(draw + 1, per_task, tasks)
