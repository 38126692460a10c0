"""What a run is worth and what it costs, as numbers; and their mean and spread over seeds."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fedstil_mpi.client.tasks import tasks_of_draws
from fedstil_mpi.comm.ledger import DOWN
from fedstil_mpi.evaluation.lifelong import average_accuracy, forgetting, mean_of_known
from fedstil_mpi.results.reading.runs import Run
from fedstil_mpi.results.reading.variants import Variant

FIRST_CONTACT = ("model", "counters")
"""Kinds of bytes that bring the start model to a client."""
WORK = ("train", "evaluate", "exchange")
"""What counts as a rank's time: not set-up, nor waiting for others."""


class Spread(NamedTuple):
    """Mean and standard deviation (n - 1) over n seeds; sd is nan for one seed."""

    mean: float
    sd: float
    n: int


def over_seeds(variant: Variant, measure: Callable[[Run], float | np.ndarray]) -> np.ndarray:
    """float64 [seeds, ...], in the order of the variant's seeds."""
    return np.array([measure(run) for run in variant.runs], dtype=float)


def spread(values: np.ndarray) -> Spread:
    """Mean and standard deviation of float64 [seeds], and of how many: those that have a value."""
    mean, sd = moments(values)
    return Spread(float(mean), float(sd), int((~np.isnan(values)).sum()))


def moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (n - 1) over the first axis, of what is not nan; the latter is nan for a single value."""
    of_rows = np.moveaxis(values, 0, -1)
    number = (~np.isnan(of_rows)).sum(axis=-1)
    mean = mean_of_known(of_rows)
    variance = mean_of_known((of_rows - mean[..., None]) ** 2)
    return mean, np.sqrt(variance * number / np.where(number > 1, number - 1, np.nan))


def half_width(values: np.ndarray) -> float:
    """Of the 95 % confidence interval of the mean of float64 [seeds], by Student's t; nan for a single value."""
    _, sd, number = spread(values)
    if number < 2:
        return math.nan
    from scipy.stats import t  # takes a second, which only reports of several seeds need

    return float(t.ppf(0.975, number - 1)) * sd / math.sqrt(number)


# -- accuracy ----------------------------------------------------------------------------------------------------------


def at_end(run: Run, model: str, name: str, scope: str | None = None) -> float:
    """Percent, mean over clients, after the last round: a metric averaged over tasks, forgetting or transfer.

    scope: as `Run.of`. nan where the run did not measure it.
    """
    if scope is not None and scope not in run.scopes:
        return math.nan
    return float(mean_of_known(run.of(model, scope).final.get(name, np.empty(0))))


def accuracy_by_round(run: Run) -> np.ndarray:
    """Served rank-1 over the seen tasks after each evaluation, percent, mean over clients. float64 [evaluations]."""
    return _by_round(run, average_accuracy)


def forgetting_by_round(run: Run) -> np.ndarray:
    """Forgetting as it would be reported had the run ended there; nan while nothing is old. float64 [evaluations]."""
    return _by_round(run, forgetting)


def _by_round(run: Run, metric: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A lifelong metric of the accuracy matrices as far as they were filled at each evaluation, by served rank-1."""
    served, tasks = run.of("served"), run.tasks
    stages = stage_by_round(run)
    matrices = np.full((run.clients, tasks, tasks), np.nan)
    values = []
    for round, metrics in zip(served.rounds, served.metrics[..., run.metrics.index("rank1")], strict=True):
        met = np.flatnonzero(stages[round - 1] >= 0)
        matrices[met, stages[round - 1, met]] = metrics[met]
        values.append([metric(matrices[client, : stages[round - 1, client] + 1]) for client in met])
    return np.array([100 * mean_of_known(np.array(of_clients, dtype=float)) for of_clients in values])


def stage_by_round(run: Run) -> np.ndarray:
    """The task that each client trained last, after each round; -1 before its first. int [rounds, clients]."""
    return tasks_of_draws(run.online.cumsum(axis=0), run.per_task, run.tasks)


def accuracy_by_task(run: Run) -> np.ndarray:
    """Served rank-1 at the end on each task, percent, mean over clients. float64 [tasks]."""
    return 100 * mean_of_known(run.of("served").metrics[-1, :, :, run.metrics.index("rank1")].T)


# -- bytes and seconds -------------------------------------------------------------------------------------------------


def megabytes(
    run: Run, direction: str | None = None, kind: str | None = None, column: str = "encoded", first_contact: bool = True
) -> float:
    """10^6 bytes per client over the whole run: of one direction or both, of one kind or all, encoded or raw."""
    ledger = run.ledger
    chosen = np.full(len(ledger["round"]), True)
    if direction is not None:
        chosen &= ledger["direction"] == direction
    if kind is not None:
        chosen &= ledger["kind"] == kind
    if not first_contact:
        chosen &= ~np.isin(ledger["kind"], FIRST_CONTACT)
    return float(ledger[column][chosen].sum() / 1e6 / run.clients)


def megabytes_by_round(run: Run) -> np.ndarray:
    """Encoded 10^6 bytes per client that had crossed when the served models were evaluated. float64 [evaluations].

    Those of round r are what the clients hold after the exchange that opens round r + 1.
    """
    ledger = run.ledger
    opening = ledger["round"] - (ledger["direction"] == DOWN)
    rounds = run.of("served").rounds
    return np.array([ledger["encoded"][opening <= round].sum() for round in rounds]) / 1e6 / run.clients


def seconds(run: Run) -> float:
    """Seconds of work of the rank that worked longest."""
    return float(np.nansum([run.seconds[activity] for activity in WORK if activity in run.seconds], axis=0).max())
