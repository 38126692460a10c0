"""metrics.csv: a row for each number that was measured, as data frames and plotting programs like it."""

import numpy as np

from fedstil_mpi.evaluation.lifelong import METRICS

LONG_FILE = "metrics.csv"
HEADER = "round,client,task,view,scope,metric,value\n"


def rows(round: int, view: str, scope: str, metrics: np.ndarray) -> str:
    """The rows of one evaluation, by client, task and metric, without those of nothing that was searched.

    metrics: float64 [clients, tasks, METRICS], fractions, written with nine digits; view: of `record.MODELS`; scope: of
    `evaluation.gallery`.
    """
    known = ~np.isnan(metrics)
    found = zip(np.argwhere(known).tolist(), metrics[known].tolist(), strict=True)
    return "".join(
        [f"{round},{c},{task},{view},{scope},{METRICS[column]},{value:.9g}\n" for (c, task, column), value in found]
    )
