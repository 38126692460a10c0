"""metrics.csv: a row for each number that was measured, as data frames and plotting programs like it."""

from collections.abc import Sequence

import numpy as np

from fedstil_mpi.evaluation.lifelong import METRICS

LONG_FILE = "metrics.csv"
HEADER = "round,client,task,view,scope,metric,value\n"


def rows(round: int, view: str, scopes: Sequence[str], metrics: np.ndarray) -> str:
    """The rows of one evaluation, by client, scope, task and metric, without those of nothing that was searched.

    metrics: float64 [clients, scopes, tasks, METRICS], fractions, written with nine digits; view: of `record.MODELS`.
    """
    known = ~np.isnan(metrics)
    places = (axis.tolist() for axis in np.nonzero(known))
    return "".join(
        [
            f"{round},{client},{task},{view},{scopes[scope]},{METRICS[column]},{value:.9g}\n"
            for client, scope, task, column, value in zip(*places, metrics[known].tolist(), strict=True)
        ]
    )
