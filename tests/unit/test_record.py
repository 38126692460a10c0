"""The files of rounds: the same keys in every line, a row for every number, and nothing twice after a resume."""

import csv
import json
from io import StringIO

import numpy as np
import pytest

from fedstil_mpi.comm.ledger import UP, Ledger
from fedstil_mpi.evaluation.lifelong import METRICS
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.results.writing.record import Record
from fedstil_mpi.results.writing.run_folder import RunFolder

ROUNDS = 4
NAN = np.nan


def record(folder):
    """Two clients, two tasks, evaluated after the second and the last round."""
    return Record(RunFolder(folder), Schedule(1, 2, 2, 2, ROUNDS, 2, 2), Ledger(), [], ["task", "client"])


def found(round, model):
    """Only the first task is searched, of which all metrics are alike: in its gallery twice those in the client's."""
    metrics = np.full((2, 2, 2, len(METRICS)), NAN)
    metrics[:, 1, 0] = round / 10 + 0.05 * (model == "served")
    metrics[:, 0] = 2 * metrics[:, 1]
    return metrics


def play(record, rounds):
    for round in rounds:
        record.begin_round(round, [0, 1])
        if round - 1 == 2:
            record.evaluation(round - 1, "served", found(round - 1, "served"))
        record.training(round, np.full((2, 3), 0.5 * round))
        if round in (2, 4):
            record.evaluation(round, "local", found(round, "local"))
        record.ledger.book(round, 0, UP, "weights", 100)
        record.end_round(round, [0, 1])


def finish(record):
    record.evaluation(ROUNDS, "served", found(ROUNDS, "served"))
    record.end()


def files(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(line.pop("seconds") >= 0 for line in lines)
    return lines, (folder / "metrics.csv").read_text()


def test_every_line_has_the_same_keys(tmp_path):
    play(record(tmp_path), range(1, ROUNDS + 1))
    lines, _ = files(tmp_path)
    assert [line["round"] for line in lines] == [1, 2, 3, 4]
    assert len({tuple(line) for line in lines}) == 1
    assert [line["local_rank1"] for line in lines] == [None, 20.0, None, 40.0]
    assert [line["served_map"] for line in lines] == [None, None, 25.0, None]
    assert [line["served_task_map"] for line in lines] == [None, None, 50.0, None]
    assert [line["loss"] for line in lines] == [0.5, 1.0, 1.5, 2.0]


def test_a_row_for_every_number(tmp_path):
    made = record(tmp_path)
    play(made, range(1, ROUNDS + 1))
    finish(made)
    rows = list(csv.DictReader(StringIO(files(tmp_path)[1])))
    assert list(rows[0]) == ["round", "client", "task", "view", "scope", "metric", "value"]
    assert len(rows) == 2 * 2 * 2 * 2 * len(METRICS)  # evaluations, models, clients, scopes
    assert {row["task"] for row in rows} == {"0"}
    values = {(row["round"], row["view"], row["scope"]): float(row["value"]) for row in rows}
    assert values == {
        (round, view, scope): pytest.approx(times * value)
        for (round, view), value in {
            ("2", "local"): 0.2,
            ("2", "served"): 0.25,
            ("4", "local"): 0.4,
            ("4", "served"): 0.45,
        }.items()
        for scope, times in (("client", 1), ("task", 2))
    }


@pytest.mark.parametrize("kept", range(1, ROUNDS))
def test_a_resumed_run_has_the_files_of_one_that_was_not_interrupted(tmp_path, kept):
    """Whatever the earlier attempt wrote after its last checkpoint, torn lines too; before the end and after it."""
    whole, resumed = record(tmp_path / "whole"), record(tmp_path / "resumed")
    for made in (whole, resumed):
        made.folder.path.mkdir()
    play(whole, range(1, ROUNDS + 1))
    states = []
    for done in range(1, kept + 1):  # each state holds what is new since the one before
        play(resumed, [done])
        states.append((resumed.state(done - 1), resumed.ledger.state(done - 1)))
    play(resumed, [kept + 1])
    for name in ("metrics.jsonl", "metrics.csv"):
        resumed.folder.append(name, "tor")
    resumed = record(tmp_path / "resumed")
    for state, entries in states:
        resumed.restore(state)
        resumed.ledger.restore(entries)
    play(resumed, range(kept + 1, ROUNDS + 1))
    assert files(tmp_path / "resumed") == files(tmp_path / "whole")
    for made in (whole, resumed):
        finish(made)
    assert files(tmp_path / "resumed") == files(tmp_path / "whole")
