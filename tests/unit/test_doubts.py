"""What a run says of figures that do not rest on every client and every query."""

import numpy as np
import pytest

from fedstil_mpi.comm.ledger import Ledger
from fedstil_mpi.evaluation.lifelong import METRICS
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.results import MODELS
from fedstil_mpi.results.reading.runs import read
from fedstil_mpi.results.reading.variants import group
from fedstil_mpi.results.report.tables import main_table
from fedstil_mpi.results.writing import summary
from fedstil_mpi.results.writing.record import Record
from fedstil_mpi.results.writing.run_folder import RunFolder
from support import made_runs

NAN = np.nan


def record(folder, *rounds, counted=1.0):
    """Two clients of one task; rounds: the losses of each, nan for a client that was not there; rank-1 is 1/2."""
    made = Record(RunFolder(folder), Schedule(1, 2, 1, 1, len(rounds), 2, 1), Ledger(), [], ["task"])
    for number, losses in enumerate(rounds, 1):
        made.training(number, np.array([[NAN] * 3 if loss is None else [loss, 0.5, 8.0] for loss in losses]))
        metrics = np.full((2, 1, 1, len(METRICS)), 0.5)
        metrics[..., METRICS.index("counted")] = counted
        for model in MODELS:
            made.evaluation(number, model, metrics)
    return made


def test_a_mean_loss_has_the_clients_that_were_there_and_is_no_number_where_one_has_diverged(tmp_path):
    made = record(tmp_path, [1.0, None], [1.0, 3.0], [1.0, NAN], [np.inf, NAN])
    assert [made.loss(round) for round in (1, 2)] == [1.0, 2.0]
    assert not np.isfinite([made.loss(3), made.loss(4)]).any()
    assert made.diverged() == {0: 4, 1: 3}
    assert [line.partition(";")[0] for line in summary.doubts(made)] == [
        "client 0 diverged in round 4",
        "client 1 diverged in round 3",
    ]
    assert summary.doubts(record(tmp_path, [1.0, None])) == []


@pytest.mark.parametrize("counted", [1.0, 0.75])
def test_the_share_of_queries_is_shown_where_it_is_not_all(counted, tmp_path):
    made = record(tmp_path, [1.0, 1.0], counted=counted)
    assert [column.header for column in summary.results_table(made).columns].count("queries counted") == (counted < 1)
    assert summary.doubts(made) == (
        ["the figures rest on 75.0 % of the queries; the others have no match in their gallery"] if counted < 1 else []
    )


def test_a_report_shows_it_too(tmp_path, monkeypatch):
    def columns(name):
        run = made_runs.write(tmp_path / name, made_runs.FIRST)
        return [column.name for column in main_table(group([read(run)])[0]).columns]

    assert "counted" not in columns("all")
    whole = made_runs._metrics
    monkeypatch.setattr(made_runs, "_metrics", lambda *given: whole(*given) * [1, 1, 1, 1, 1, 0.5])
    assert "counted" in columns("half")
