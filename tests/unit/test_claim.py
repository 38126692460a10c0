"""docs/claim.md: the same from runs and from a report on them, with the differences and savings that follow by hand."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

from fedstil_mpi import report
from support import made_runs
from support.made_runs import FIRST, SECOND, traffic

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "bench"))
claim = import_module("claim")

STREAM = {
    "ours": {"paper": "FedSTIL, paper", "default": "FedSTIL"},
    "published": ["FedAvg", "EWC", "FedCurv"],
    "aided": ["FedAvg with aids"],
}


@pytest.fixture
def folder(tmp_path):
    """FIRST ends at 60 and SECOND at 70; FedSTIL sends 140 MB, FedAvg 200, EWC 100."""
    for seed, (ours, theirs) in enumerate([(SECOND, FIRST), (SECOND, FIRST), (FIRST, FIRST)], 1):
        for label, values, sent in (("FedSTIL", ours, (10, 10)), ("FedAvg", theirs, (30, 20)), ("EWC", FIRST, (0, 0))):
            made_runs.write(
                tmp_path / f"{label}-{seed}",
                values,
                label=label,
                seed=seed,
                ledger=traffic(*sent),
                method=label.lower(),
            )
    return tmp_path


def test_differences_and_savings_by_hand(folder):
    """Ahead by 10, 10 and 0 points, of FedAvg, which comes first of two equals, by 1 - 140 / 200 of its bytes."""
    found = claim.measured([folder], "task")
    which, points, _, sent = claim.against(found["FedSTIL"], STREAM["published"], found)
    assert which == "FedAvg (of 3, 1 not measured yet)"
    assert points.startswith("+6.7 (")
    assert points.endswith(", 3)")
    assert sent == "-30.0 %"
    text = claim.bytes_saved(STREAM, found)
    assert "| FedAvg | 200.0 | not measured yet | -30.0 % |" in text
    assert "| EWC | 100.0 | not measured yet | +40.0 % |" in text
    assert "| FedCurv | not measured yet | not measured yet | not measured yet |" in text


def test_what_is_not_there_is_told_as_such(folder):
    text = claim.accuracies(STREAM, claim.measured([folder], "task"))
    for line in (
        "| FedSTIL, paper | the best other as published |",
        "| FedSTIL, default | the best other with the same aids |",
    ):
        assert f"{line}  | not measured yet |" in text


def test_a_report_says_the_same_as_the_runs(folder):
    found = claim.measured([folder], "task")
    report.write(report.load([folder]), folder / "report")
    again = claim.measured([folder / "report"], "task")
    assert again.keys() == found.keys()
    assert all(again[label].rank1 == pytest.approx(found[label].rank1) for label in found)
    assert claim.measured([folder], "all") == {}


def test_of_two_places_the_later_number_counts(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for place, lines in ((one, "FedAvg,1,50,8\nFedAvg,2,60,8\n"), (two, "FedAvg,2,70,8\nDitto,2,55,8\n")):
        place.mkdir()
        (place / "by_seed.csv").write_text("variant,seed,served_rank1,total_mb\n" + lines)
    found = claim.measured([one, two], "task")
    assert {label: dict(of.rank1) for label, of in found.items()} == {"FedAvg": {1: 50, 2: 70}, "Ditto": {2: 55}}


def test_the_page_is_what_its_command_makes(tmp_path, monkeypatch):
    page = ROOT / "docs" / "claim.md"
    monkeypatch.setattr(sys, "argv", ["bench/claim.py", "bench/claim.yaml", "--output", str(tmp_path / "claim.md")])
    monkeypatch.chdir(ROOT)
    claim.main()
    assert (tmp_path / "claim.md").read_text().replace(str(tmp_path), "docs") == page.read_text()
