"""Trackers are told of every round once, also by a run that goes on; a missing one is an error, a failing one is not."""

import numpy as np
import pytest

from fedstil_mpi.comm.ledger import DOWN, Ledger
from fedstil_mpi.config import loading
from fedstil_mpi.config.identity import NOT_DECIDING
from fedstil_mpi.evaluation.lifelong import METRICS
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.results.writing import trackers
from fedstil_mpi.results.writing.record import Record
from fedstil_mpi.results.writing.run_folder import RunFolder
from fedstil_mpi.results.writing.tracking import Tracking
from fedstil_mpi.util.errors import InputError
from support import SMALL, TINY
from support.launch import alone

ROUNDS = 3
HIDING = """
from fedstil_mpi import run
from fedstil_mpi.results.writing import trackers
trackers.find_spec = lambda name: None
run.main()
"""
"""A run where no package is found."""


class InMemory:
    def __init__(self):
        self.noted = []

    def note(self, round, values):
        self.noted += [(name, round, value) for name, value in values.items()]

    def close(self):
        self.noted.append("closed")


class Failing(InMemory):
    def note(self, round, values):
        raise ConnectionError("no answer")


def play(record, tracking, rounds):
    """Rank-1 is a tenth of the round, and 5 % more when served."""
    for round in rounds:
        if round > 1:
            record.evaluation(round - 1, "served", np.full((2, 1, 1, len(METRICS)), (round - 1) / 10 + 0.05))
        if round > ROUNDS:
            tracking.end()
            break
        record.begin_round(round, [0, 1])
        record.training(round, np.full((2, 3), float(round) if round < 3 else np.inf))
        record.evaluation(round, "local", np.full((2, 1, 1, len(METRICS)), round / 10))
        record.ledger.book(round, 0, DOWN, "weights", 1_500_000)
        for observer in (record, tracking):
            observer.end_round(round, [0, 1])


def record(folder):
    folder.mkdir(exist_ok=True)
    return Record(RunFolder(folder), Schedule(1, 2, 1, 3, ROUNDS, 2, 1), Ledger(), [], ["task"])


def interrupted(folder, begin, kept, lost):
    """A run that is broken off `lost` rounds after its checkpoint, and goes on to its end; begin: opens the trackers."""
    first = record(folder)
    tracking = Tracking(first, begin())
    play(first, tracking, range(1, kept + 1))
    state, entries = first.state(), first.ledger.state()
    play(first, tracking, range(kept + 1, kept + 1 + lost))
    second = record(folder)
    tracking = Tracking(second, begin())
    second.restore(state)
    second.ledger.restore(entries)
    play(second, tracking, range(kept + 1, ROUNDS + 2))
    tracking.close()


def test_all_rounds_are_told_each_under_its_own(tmp_path):
    tracker, made = InMemory(), record(tmp_path)
    tracking = Tracking(made, {"x": tracker})
    play(made, tracking, range(1, ROUNDS + 2))
    tracking.close()
    told = {(name, round): value for name, round, value in tracker.noted[:-1]}
    assert len(told) == len(tracker.noted) - 1
    assert [told["local/rank1", round] for round in (1, 2, 3)] == pytest.approx([10, 20, 30])
    assert [told["served/rank1", round] for round in (1, 2, 3)] == pytest.approx([15, 25, 35])
    assert [told.get(("loss", round)) for round in (1, 2, 3)] == [1.0, 2.0, None]  # no number is not told
    assert told["MB down", 2] == 1.5


def test_one_that_fails_is_left_out_and_the_others_go_on(tmp_path, capsys):
    tracker, made = InMemory(), record(tmp_path)
    play(made, Tracking(made, {"bad": Failing(), "good": tracker}), range(1, ROUNDS + 2))
    assert capsys.readouterr().err == (
        "fedstil_mpi: tracking by bad ends here, the run goes on: ConnectionError: no answer\n"
    )
    assert ("local/rank1", 3, pytest.approx(30)) in tracker.noted


def steps(name, folder):
    """Metric -> its steps, as the tracker's own reader has them."""
    if name == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        found = EventAccumulator(str(folder / "tensorboard"), purge_orphaned_data=False).Reload()
        return {tag: [event.step for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
    from mlflow import MlflowClient

    client, run = MlflowClient(), (folder / "mlflow-run").read_text()
    metrics = client.get_run(run).data.metrics
    return {tag: [metric.step for metric in client.get_metric_history(run, tag)] for tag in metrics}


@pytest.mark.parametrize("name", trackers.KINDS)
@pytest.mark.parametrize(("kept", "lost"), [(1, 0), (1, 1), (2, 1)])
def test_after_a_resume_no_step_is_doubled(name, kept, lost, tmp_path, monkeypatch):
    pytest.importorskip(name, reason=f"{name} is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path / 'server'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    folder = tmp_path / "run"
    interrupted(folder, lambda: trackers.open_trackers([name], folder), kept, lost)
    found = steps(name, folder)
    assert found.pop("loss") == [1, 2]
    assert {"local/rank1", "served/map", "MB down", "seconds"} <= set(found)
    assert all(of_metric == [1, 2, 3] for of_metric in found.values()), found


def test_a_run_with_a_missing_tracker_is_refused(tmp_path):
    settings = [TINY, SMALL, f"output={tmp_path / 'runs'}", "tracking=[tensorboard]"]
    done = alone("-c", HIDING, *settings)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("fedstil_mpi: tracking has tensorboard, which is not installed; pip install")
    assert not (tmp_path / "runs").exists()


def test_tracking_is_a_list_of_known_names_and_decides_no_result():
    with pytest.raises(InputError, match="tracking = 'tensorbord'; did you mean tensorboard"):
        loading.resolve({"tracking": ["tensorbord"]})
    assert loading.resolve({"tracking": ["mlflow"]}).tracking == ["mlflow"]
    assert "tracking" in NOT_DECIDING
