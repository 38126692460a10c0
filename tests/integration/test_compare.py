"""The comparison: its runs are those of the run command, an interrupted one goes on, and mistakes show before the start."""

import json

import pytest

from support import TINY
from support.launch import alone, mpirun
from support.results import different, results

VARIANTS = {
    "alone": {"method.name": "single", "method.preset": "paper", "memory.size": 0},
    "FedAvg": {"method.name": "fedavg"},
    "FedSTIL": {"method.name": "fedstil", "method.relevance": "uniform"},
}


def config(folder, **changes):
    """The file of a comparison whose runs go to `folder`/results/both."""
    plan = {"base": str(TINY), "name": "both", "output": str(folder / "results"), "seeds": [1, 2], "variants": VARIANTS}
    path = folder / "compare.yaml"
    path.write_text(json.dumps(plan | changes))
    return path


def compare(*arguments):
    """The command on a single rank."""
    return alone("-m", "fedstil_mpi.compare", *arguments)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    done = mpirun(2, ["-m", "fedstil_mpi.compare", config(folder)], timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "results" / "both"


def test_runs_are_those_of_the_run_command(compared, tmp_path):
    """Also the last of its seed, which found the shared resources as two runs before it left them."""
    arguments = [TINY, f"output={tmp_path}", "name=one", "seed=2", "method.name=fedstil", "method.relevance=uniform"]
    done = mpirun(3, ["-m", "fedstil_mpi.run", *arguments])
    assert done.returncode == 0, done.stderr
    assert not different(results(compared / "fedstil-2"), results(tmp_path / "one"))
    assert different(results(compared / "fedstil-1"), results(tmp_path / "one"))


def test_one_report_of_all_variants(compared):
    text = (compared / "report" / "report.md").read_text()
    assert all(label in text for label in VARIANTS)
    assert {path.suffix for path in (compared / "report").iterdir()} == {".md", ".png", ".csv"}


def test_an_interrupted_comparison_goes_on_where_it_stopped(tmp_path):
    path = config(tmp_path, seeds=[1])
    runs = tmp_path / "results" / "both"
    assert compare(path, "--only", "alone", "FedAvg", "--no-report").returncode == 0
    assert not (runs / "report").exists()
    stored = (runs / "alone-1" / "results.h5").stat().st_mtime_ns
    for name in ("complete", "results.h5"):  # as if it had been killed before its first checkpoint
        (runs / "fedavg-1" / name).unlink()
    done = compare(path)
    assert done.returncode == 0, done.stderr
    assert "FedAvg, seed 1" in done.stderr
    assert "FedSTIL, seed 1" in done.stderr
    assert "alone, seed 1" not in done.stderr
    assert (runs / "alone-1" / "results.h5").stat().st_mtime_ns == stored
    assert all((runs / name / "results.h5").exists() for name in ("fedavg-1", "fedstil-1"))

    refused = compare(path, "train.lr=0.5")
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith(
        f"fedstil_mpi: {runs / 'alone-1'} holds a run with other settings (train.lr = 0.001, now 0.5)"
    )


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        (
            {"variants": VARIANTS | {"bad": {"method.name": "fedawg"}}},
            [],
            "unknown method 'fedawg'; did you mean fedavg?",
        ),
        (
            {"variants": VARIANTS | {"bad": {"train.lrr": 1}}},
            [],
            "unknown config key train.lrr; did you mean train.lr?",
        ),
        ({"seed": 1}, [], "unknown config key comparison.seed; did you mean comparison.seeds?"),
        ({"variants": {}}, [], "give one or more of each"),
        ({"against": "FedSTYL"}, [], "expected one of alone, FedAvg, FedSTIL"),
        ({}, ["--only", "fedavg"], "did you mean FedAvg?"),
        ({}, ["--only", "FedAvg", "seed=3"], "seed=3: that is for the comparison to set; give --seeds, or seeds in"),
        ({"variants": {"a b": {}, "A-B": {}}}, [], "rename one"),
        ({"base": "nowhere.yaml"}, [], "nowhere.yaml does not exist"),
    ],
)
def test_mistakes_are_refused_before_the_first_run(tmp_path, changes, arguments, message):
    done = compare(config(tmp_path, **changes), *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert message in line
    assert not (tmp_path / "results").exists()
