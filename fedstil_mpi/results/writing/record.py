"""What a run has found, collected on rank 0."""

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedstil_mpi.client.tasks import tasks_of_draws
from fedstil_mpi.comm.ledger import DOWN, UP, Ledger
from fedstil_mpi.evaluation import lifelong
from fedstil_mpi.evaluation.lifelong import METRICS, mean_of_known
from fedstil_mpi.evaluation.scopes import headline
from fedstil_mpi.federation.observer import Observer
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.federation.state import LOST
from fedstil_mpi.results import MODELS, TASK_FREE
from fedstil_mpi.results.writing import mixing_rows
from fedstil_mpi.results.writing.long_form import HEADER, LONG_FILE, rows
from fedstil_mpi.results.writing.mixing_rows import MixingRows
from fedstil_mpi.results.writing.run_folder import RunFolder
from fedstil_mpi.util.state_tree import State

METRICS_FILE = "metrics.jsonl"
"""A line a round, all with the same keys."""


class Record(Observer):
    """Metrics, losses, relevance and bytes by round. Lives on rank 0."""

    def __init__(
        self, folder: RunFolder, schedule: Schedule, ledger: Ledger, events: list[dict[str, Any]], scopes: Sequence[str]
    ):
        """events: the interruptions of the run so far (`Federation.events`); scopes: their names."""
        self.folder = folder
        self.schedule = schedule
        self.ledger = ledger
        self.metrics: dict[str, dict[int, np.ndarray]] = {model: {} for model in (*MODELS, *TASK_FREE)}
        """Model -> round -> float64 [clients, scopes, tasks, METRICS]."""
        self.reports: dict[int, np.ndarray] = {}
        """Round -> float64 [clients, 3]: loss, accuracy, new images of the local training; nan when offline."""
        self.relevances: dict[int, MixingRows] = {}
        """Round -> how was mixed at its start what each receiver got."""
        self.seconds: dict[int, float] = {}
        """Round -> wall seconds that it took rank 0, to the millisecond."""
        self.events = events
        self.scopes = scopes
        self.headline = scopes.index(headline(scopes))
        """Where the scope stands whose numbers are told alone."""
        self.online = dict(schedule.rounds())
        self._noted = 0
        """The last round that is in both files of rounds; 0 where that is not known."""

    def begin_round(self, round: int, online: Sequence[int]) -> None:
        self._began = time.perf_counter()

    def training(self, round: int, reports: np.ndarray | None) -> None:
        assert reports is not None
        self.reports[round] = reports

    def relevance(self, round: int, receivers: Sequence[int], relevance_OK: Tensor | None) -> None:
        if relevance_OK is not None:
            told_before = self.relevances.setdefault(round, {})
            told_before |= mixing_rows.pack(receivers, relevance_OK.numpy())

    def evaluation(self, round: int, model: str, metrics: np.ndarray | None) -> None:
        assert metrics is not None
        self.metrics[model][round] = metrics

    def served_is_local(self, round: int) -> None:
        """Nothing comes back from the server, so the served model is the local one."""
        for local in ("local", "local_task_free"):
            if round in self.metrics[local]:
                self.metrics[local.replace("local", "served")][round] = self.metrics[local][round]

    def end_round(self, round: int, online: Sequence[int]) -> None:
        """Bring both files to this round. At first all of them is made anew, as an earlier attempt may have left another."""
        self.seconds[round] = int(1000 * (time.perf_counter() - self._began)) / 1000
        if self._noted and self._noted == round - 1:
            self.folder.append(METRICS_FILE, self._line(round))
            self.folder.append(LONG_FILE, self._rows(round))
        else:
            self.write_lines()
        self._noted = round

    def end(self) -> None:
        """The last rows: of what the last exchange served."""
        if self._noted:
            self.folder.append(LONG_FILE, self._rows(self._noted + 1))
        else:
            self.write_lines()

    def write_lines(self) -> None:
        """Make both files of what was recorded: a line for each round, and a row for each number."""
        rounds = sorted(self.reports)
        self.folder.write(METRICS_FILE, "".join(map(self._line, rounds)))
        self.folder.write(LONG_FILE, HEADER + "".join(map(self._rows, [*rounds, rounds[-1] + 1])))

    def _rows(self, round: int) -> str:
        return "".join(
            rows(at, model, self.scopes, self.metrics[model][at])
            for model, at in self.news(round, self.metrics).items()
        )

    def _line(self, round: int) -> str:
        """JSON; what is no number, or was not evaluated, is null. What a round served is what the one before had learned."""
        line: dict[str, Any] = {
            "round": round,
            "online": self.online[round],
            "loss": _finite(self.loss(round)),
            "bytes_down": self.ledger.total(DOWN, round),
            "bytes_up": self.ledger.total(UP, round),
            "seconds": self.seconds[round],
            "events": [event for event in self.events if event["event"] == LOST and event["round"] == round],
        }
        news = self.news(round)
        for model in MODELS:
            line |= {f"{model}_{name}": value for name, value in self.means(model, news.get(model)).items()}
        return json.dumps(line) + "\n"

    def news(self, round: int, models: Iterable[str] = MODELS) -> dict[str, int]:
        """Which of these models were evaluated since the round before, and as of which round each.

        Local models as of this round; what is served is known one round later, so as of the last one.
        """
        ats = {model: round - model.startswith("served") for model in models}
        return {model: at for model, at in ats.items() if at in self.metrics[model]}

    def loss(self, round: int) -> float:
        """Mean over the clients that trained in the round; nan where one of them has diverged."""
        reports = self.reports[round]
        took_part = ~np.isnan(reports[:, 2])
        return float(np.sum(reports[:, 0], where=took_part) / took_part.sum())

    def diverged(self) -> dict[int, int]:
        """Client -> the first round in which its loss or weights were no finite numbers."""
        firsts: dict[int, int] = {}
        for round, reports in sorted(self.reports.items(), reverse=True):
            firsts |= dict.fromkeys(
                np.flatnonzero(~np.isnan(reports[:, 2]) & ~np.isfinite(reports[:, 0])).tolist(), round
            )
        return dict(sorted(firsts.items()))

    def means(self, model: str, round: int | None) -> dict[str, float | None]:
        """Mean over clients of the mean over evaluated tasks, in percent; None where nothing is known, as of no round.

        By metric, before which stands the scope where it is not the one whose numbers are told alone: rank1, task_rank1.
        """
        names = [
            metric if at == self.headline else f"{scope}_{metric}"
            for at, scope in enumerate(self.scopes)
            for metric in METRICS
        ]
        if round is None:
            return dict.fromkeys(names)
        of_clients = 100 * mean_of_known(np.moveaxis(self.metrics[model][round], 2, -1))
        means = mean_of_known(np.moveaxis(of_clients, 0, -1))
        return dict(zip(names, map(_finite, means.ravel().tolist()), strict=True))

    # -- interruptions ------------------------------------------------------------------------------------------------

    def state(self, since: int = 0) -> State:
        served_since = max(0, since - 1)  # the round that follows tells what a round served
        return {
            "metrics": {
                model: _by_round(rounds, served_since if model.startswith("served") else since)
                for model, rounds in self.metrics.items()
            },
            "reports": _by_round(self.reports, since),
            "relevances": {str(at): mixing_rows.state(rows) for at, rows in self.relevances.items() if at > since},
            "seconds": {str(round): seconds for round, seconds in self.seconds.items() if round > since},
        }

    def restore(self, state: State) -> None:
        for model, rounds in state["metrics"].items():
            self.metrics[model] |= _arrays(rounds)
        self.reports |= _arrays(state["reports"])
        self.relevances |= {int(round): mixing_rows.restored(rows) for round, rows in state["relevances"].items()}
        self.seconds |= {int(round): seconds for round, seconds in state["seconds"].items()}

    # -- lifelong measures ---------------------------------------------------------------------------------------------

    def accuracy_matrices(self, model: str, metric: str = "rank1") -> np.ndarray:
        """R[client, scope, stage, task] as fractions: the last evaluation while the client was at that stage; nan where none.

        float64 [clients, scopes, tasks, tasks].
        """
        column = METRICS.index(metric)
        tasks = self.schedule.tasks
        matrices = np.full((self.schedule.clients, len(self.scopes), tasks, tasks), np.nan)
        draws = np.zeros(self.schedule.clients, dtype=int)
        for round, online in self.schedule.rounds():
            draws[online] += 1
            if round in self.metrics[model]:
                found = self.metrics[model][round][..., column]
                there = np.flatnonzero((draws > 0) & ~np.isnan(found).all(axis=(1, 2)))  # lost clients have none
                matrices[there, :, tasks_of_draws(draws[there], self.schedule.per_task, tasks)] = found[there]
        return matrices

    def final(self, model: str) -> dict[str, np.ndarray]:
        """Per client at the end, in percent, float64 [clients, scopes]: every metric averaged over tasks, and forgetting.

        nan for clients that were never drawn, or that are lost.
        """
        last = self.metrics[model][self.schedule.total]
        result = {name: 100 * mean_of_known(last[..., column]) for column, name in enumerate(METRICS)}
        matrices = self.accuracy_matrices(model)
        for name, metric in (("forgetting", lifelong.forgetting), ("transfer", lifelong.backward_transfer)):
            values = _lifelong(matrices.reshape(-1, *matrices.shape[2:]), metric).reshape(matrices.shape[:2])
            result[name] = np.where(np.isnan(last).all(axis=(2, 3)), np.nan, 100 * values)
        return result


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _by_round(arrays: dict[int, np.ndarray], since: int) -> State:
    return {str(round): torch.from_numpy(array) for round, array in arrays.items() if round > since}


def _arrays(by_round: State) -> dict[int, np.ndarray]:
    return {int(round): tensor.numpy() for round, tensor in by_round.items()}


def _lifelong(matrices: np.ndarray, metric: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The metric of each matrix [stage, task] over the stages that were reached and evaluated; nan where there are none."""
    evaluated = ~np.isnan(matrices).all(axis=2)
    stages = np.where(evaluated, np.arange(1, evaluated.shape[1] + 1), 0).max(axis=1)
    values = np.full(len(matrices), np.nan)
    for reached in np.unique(stages[stages > 0]):
        values[stages == reached] = metric(matrices[stages == reached, :reached])
    return values
