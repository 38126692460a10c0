"""How large a run's files become: the same files, written with made-up numbers into a folder that is then removed."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fedstil_mpi.comm.ledger import Ledger
from fedstil_mpi.evaluation.lifelong import METRICS
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.results.writing.record import Record
from fedstil_mpi.results.writing.run_folder import RunFolder
from fedstil_mpi.results.writing.summary import ACTIVITIES

NUMBER = 1 / 7
"""As many digits as a number can have."""


def measure(schedule: Schedule, ledger: Ledger, ranks: int, *, task_aware: bool, mixes: bool) -> dict[str, int]:
    """Bytes by file name. task_aware: tasks have models of their own; mixes: the server has a mixing matrix."""
    with TemporaryDirectory(prefix="fedstil_mpi-") as folder:
        record = Record(RunFolder(Path(folder)), schedule, ledger)
        _play(record, task_aware, mixes)
        timings = [dict.fromkeys(ACTIVITIES, NUMBER) for _ in range(ranks)]
        record.save(Path(folder) / "results.h5", timings, ["0" * 64] * schedule.clients)
        return {path.name: path.stat().st_size for path in _files(Path(folder))}


def _play(record: Record, task_aware: bool, mixes: bool) -> None:
    """What `rounds.run_rounds` tells the record, in its order."""
    schedule = record.schedule
    matrix = np.zeros((schedule.clients, schedule.clients), np.float32)
    metrics = np.full((schedule.clients, schedule.tasks, len(METRICS)), NUMBER)
    endings = ("", "_task_free") if task_aware else ("",)

    def evaluate(view: str, round: int) -> None:
        for ending in endings:
            record.evaluation(round, view + ending, metrics)

    for round, online in schedule.rounds():
        if mixes and round > 1:
            record.relevances[round] = matrix
        if round > 1 and schedule.evaluates(round - 1):
            evaluate("served", round - 1)
        if schedule.evaluates(round):
            evaluate("local", round)
        record.training(round, np.full((schedule.clients, 3), NUMBER))
        record.end_round(round, online)
    if mixes:
        record.relevances[schedule.total + 1] = matrix
    evaluate("served", schedule.total)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.is_file())
