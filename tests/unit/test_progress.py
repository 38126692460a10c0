"""How far a run is can be seen where nobody watches, and read later; a person who watches sees a bar."""

import re

import numpy as np
import pytest

from fedstil_mpi.comm.ledger import DOWN, UP, Ledger
from fedstil_mpi.evaluation.lifelong import METRICS
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.results.writing import progress, summary
from fedstil_mpi.results.writing.log import LOG_FILE, Log
from fedstil_mpi.results.writing.progress import RunProgress
from fedstil_mpi.results.writing.record import Record
from fedstil_mpi.results.writing.run_folder import RunFolder
from fedstil_mpi.util import terminal
from fedstil_mpi.util.tables import plain

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  "


@pytest.fixture
def record(tmp_path):
    """Two clients of one task; 1 MB down and half a MB up in each of four rounds, evaluated after the second and the last."""
    made = Record(RunFolder(tmp_path), Schedule(1, 2, 1, 1, 4, 2, 2), Ledger(), [], ["task"])
    for round in range(1, 5):
        made.ledger.book(round, 0, DOWN, "weights", 1_000_000)
        made.ledger.book(round, 0, UP, "weights", 500_000)
    for round, rank1 in ((2, 0.5), (4, 0.75)):
        for model in ("local", "served"):
            found = np.full((2, 1, 1, len(METRICS)), rank1 + 0.125 * (model == "served"))
            made.evaluation(round, model, found)
    return made


@pytest.fixture
def clock(monkeypatch):
    """What time.monotonic() says: time[0]."""
    time = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: time[0])
    return time


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (5025, "1:23:45"), (360000, "100:00:00")]
)
def test_durations(seconds, text):
    assert summary.duration(seconds) == text


def test_a_line_for_each_stage_and_each_round(record, clock):
    lines = []
    shown = RunProgress(terminal.console(), lines.append, bar=False)
    clock[0] += 5
    shown.stage("images")
    clock[0] += 60
    shown.begin(record, 1)  # goes on after round 1
    for round in (2, 3, 4):
        clock[0] += 10
        shown.end_round(round, [0, 1])
    assert lines == [
        "    0:05  images",
        "    1:15  round 2 of 4, about 0:20 left, 6.0 MB, local rank-1 50.0 (round 2)",
        "    1:25  round 3 of 4, about 0:10 left, 6.0 MB, served rank-1 62.5 (round 2)",
        "    1:35  round 4 of 4, about 0:00 left, 6.0 MB, local rank-1 75.0 (round 4)",
    ]


def test_in_a_terminal_a_bar_says_what_the_set_up_is_at(record, monkeypatch, capsys):
    monkeypatch.setattr(terminal, "is_watched", lambda: True)
    shown = RunProgress(terminal.console(), lambda line: None, bar=True)
    for stage in ("images", "start model"):
        shown.stage(stage)
        shown._bar.refresh()
    shown.begin(record, 3)
    shown.end_round(4, [0, 1])
    shown.end()
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out)
    assert [word for word in re.findall("images|start model|100%", text) if word][:2] == ["images", "start model"]
    assert "100%" in text


def test_a_log_is_there_once_the_run_has_its_folder_and_is_added_to(tmp_path):
    table = plain("client", "rank-1")
    table.add_row("0", "50.0")
    for line in ("first", "second"):
        log = Log(RunFolder(tmp_path))
        log.line(line)
        log.show(table)
        before = (tmp_path / LOG_FILE).read_text() if line == "second" else None
        assert (tmp_path / LOG_FILE).exists() == (line == "second")
        log.open()
        log.line(f"{line} again")
        assert (tmp_path / LOG_FILE).read_text().startswith(before or "")
    pattern = "".join(
        rf"{STAMP}{line}\nclient  rank-1  \n     0    50.0  \n{STAMP}{line} again\n" for line in ("first", "second")
    )
    assert re.fullmatch(pattern, (tmp_path / LOG_FILE).read_text())
