"""Run folders with made-up numbers, written by the program's own record, and what a report makes of them."""

import csv
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import torch

from fedstil_mpi.comm.ledger import Ledger
from fedstil_mpi.config.schema import Experiment, Method, Participation
from fedstil_mpi.evaluation.lifelong import METRICS
from fedstil_mpi.evaluation.scopes import gallery
from fedstil_mpi.federation.schedule import plan
from fedstil_mpi.results import RESULTS_FILE
from fedstil_mpi.results.writing.record import Record
from fedstil_mpi.results.writing.results_file import write_results
from fedstil_mpi.results.writing.run_folder import RunFolder

NAN = np.nan
MB = 1_000_000
# Two clients, two tasks, one round a task: rank-1 after round 1, then after round 2.
FIRST = [[[0.5, NAN], [0.7, NAN]], [[0.4, 0.8], [0.6, 0.6]]]  # ends at 60, has forgotten 10 and 10
SECOND = [[[0.5, NAN], [0.9, NAN]], [[0.6, 0.8], [0.8, 0.6]]]  # ends at 70, has forgotten -10 and 10
UNIFORM = np.full((2, 2), 0.5)
SKEWED = np.array([[0.25, 0.75], [1.0, 0.0]])
SECONDS = ({"train": 1.0, "evaluate": 2.0, "exchange": 3.0, "wait": 100.0, "set-up": 100.0},)
LEDGER = ((1, 0, "S2C", "model", 1000),)


def write(
    folder,
    served,
    *,
    local=None,
    task_free=None,
    method="fedstil",
    preset="best",
    overridden=None,
    options=None,
    seed=1,
    per_task=1,
    drawn=None,
    rounds=None,
    ledger=LEDGER,
    relevances=None,
    seconds=SECONDS,
    label=None,
    scopes=MappingProxyType({"task": 0}),
    **sections,
):
    """A complete run; returns its folder.

    served, local (else served) and task_free: rank-1 as fractions [evaluations, clients, tasks], nan where a task is not
    searched; rank-3 to rank-10 are 1 and mAP is half of rank-1. scopes: scope -> what
    its rank-1 has more. rounds: when they were evaluated, else after each.
    drawn: clients in a round. ledger: round, client, direction, kind, raw bytes and, if it differs, encoded bytes.
    relevances: {round: matrix}. sections: of the config, for example memory={"size": 3}.
    """
    served = np.array(served, dtype=float)
    evaluations, clients, tasks = served.shape
    rounds = list(rounds or range(1, evaluations + 1))
    participation = Participation(**sections.get("participation", {}))
    schedule = plan(seed, clients, tasks, per_task, rounds[-1], drawn, 1, participation)
    experiment = Experiment(name=folder.name, output=str(folder.parent), seed=seed)
    experiment.method = Method(name=method, preset=preset, options=options or {}, overridden=overridden or {})
    experiment.evaluation.gallery = list(dict.fromkeys(map(gallery, scopes)))
    experiment.rounds.per_task, experiment.data.tasks, experiment.rounds.clients_per_round = per_task, tasks, drawn
    for section, values in sections.items():
        setattr(experiment, section, replace(getattr(experiment, section), **values))

    folder.mkdir(parents=True, exist_ok=True)
    run_folder = RunFolder(folder)
    run_folder.create(experiment, [{"rank": rank} for rank in range(len(seconds))])
    record = Record(run_folder, schedule, Ledger(), [], list(scopes))
    for entry in ledger:
        record.ledger.book(*entry)
    for round, online in schedule.rounds():
        report = np.full((clients, 3), np.nan)
        report[online] = 0.5, 0.5, 10
        record.training(round, report)
        record.seconds[round] = 2.0
    for model, values in {"served": served, "local": local, "served_task_free": task_free}.items():
        for round, rank1 in zip(rounds, np.array(served if values is None else values, dtype=float), strict=True):
            if model != "served_task_free" or values is not None:
                record.evaluation(round, model, _metrics(rank1, scopes))
                if model == "served_task_free":
                    record.evaluation(round, "local_task_free", _metrics(rank1, scopes))
    for round, matrix in (relevances or {}).items():
        record.relevance(round, range(len(matrix)), torch.tensor(matrix))
    record.write_lines()
    write_results(folder / RESULTS_FILE, record, list(seconds), [""] * clients)
    if label is not None:
        (folder / "label").write_text(label + "\n")
    return folder


def _metrics(rank1, scopes):
    rank1 = np.stack([rank1 + more for more in scopes.values()], axis=1)
    metrics = np.where(np.isnan(rank1)[..., None], np.nan, np.ones((*rank1.shape, len(METRICS))))
    metrics[..., METRICS.index("rank1")] = rank1
    metrics[..., METRICS.index("map")] = rank1 / 2
    return metrics


def traffic(down, up):
    """Megabytes of two clients: a model of 100 in round 1, `down` before round 2 and after it, `up` after both."""
    ledger = [(1, client, "S2C", "model", 100 * MB) for client in range(2)]
    for client in range(2):
        ledger += [(round, client, "C2S", "weights", up * MB) for round in (1, 2)]
        ledger += [(round, client, "S2C", "weights", down * MB) for round in (2, 3)]
    return ledger


def write_three(folder):
    """FedAvg and FedSTIL with two seeds each, and learning alone with one; returns the folder."""
    write(folder / "fedavg-1", FIRST, method="fedavg", seed=1, ledger=traffic(30, 20))
    write(folder / "fedavg-2", SECOND, method="fedavg", seed=2, ledger=traffic(30, 20))
    better = np.add(FIRST, 0.1)
    mixing = {2: UNIFORM, 3: SKEWED}
    write(folder / "fedstil-1", better, seed=1, ledger=traffic(10, 10), relevances=mixing)
    write(folder / "fedstil-2", SECOND, seed=2, ledger=traffic(10, 10), local=better, relevances=mixing)
    write(folder / "single-1", FIRST, method="single", ledger=traffic(0, 0))
    return folder


def csv_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
