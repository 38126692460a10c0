"""metrics.csv: a row for each number that was measured, as data frames and plotting programs like it."""

from collections.abc import Sequence

import numpy as np

from fedstil_mpi.evaluation.lifelong import METRICS

LONG_FILE = "metrics.csv"
HEADER = "round,client,task,view,scope,metric,value\n"


def rows(round: int, view: str, scopes: Sequence[str], metrics: np.ndarray) -> str:
    """The rows of one evaluation, by client, scope, task and metric, without those of nothing that was searched.

    metrics: float64 [clients, scopes, tasks, METRICS], fractions, written with nine digits; view: which model was
    evaluated, of `results.MODELS` or TASK_FREE.
    """
    tasks = range(metrics.shape[2])
    names = [f"{task},{view},{scope},{metric}" for scope in scopes for task in tasks for metric in METRICS]
    lines: list[str] = []
    for client, values in enumerate(metrics.reshape(len(metrics), -1)):
        start, known = f"{round},{client},", np.flatnonzero(~np.isnan(values))
        numbers = zip(known.tolist(), values[known].tolist(), strict=True)
        lines += [f"{start}{names[place]},{value:.9g}\n" for place, value in numbers]
    return "".join(lines)
