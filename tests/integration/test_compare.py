"""The comparison: its runs are those of the run command, an interrupted one goes on, and mistakes show before the start."""

import json

import pytest

from support import SMALL, TINY
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


def command(path, *arguments):
    return ["-m", "fedstil_mpi.compare", path, SMALL, *arguments]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A comparison that ended after two runs, of which the second is as if it had been killed before its first checkpoint."""
    folder = tmp_path_factory.mktemp("compare")
    runs = folder / "results" / "both"
    done = alone(*command(config(folder), "--only", "alone", "FedAvg", "--seeds", "1", "--no-report"))
    assert done.returncode == 0, done.stderr
    assert not (runs / "report").exists()
    for name in ("complete", "results.h5"):
        (runs / "fedavg-1" / name).unlink()
    return folder, (runs / "alone-1" / "results.h5").stat().st_mtime_ns


@pytest.fixture(scope="module")
def compared(interrupted):
    """Its folder of runs when the whole comparison is done, and what was said in that."""
    folder, _ = interrupted
    done = mpirun(2, command(config(folder)), timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "results" / "both", done.stderr


def test_an_interrupted_comparison_goes_on_where_it_stopped(interrupted, compared):
    runs, said = compared
    assert "FedAvg, seed 1" in said
    assert "FedSTIL, seed 1" in said
    assert "alone, seed 1" not in said
    assert (runs / "alone-1" / "results.h5").stat().st_mtime_ns == interrupted[1]


def test_runs_are_those_of_the_run_command(compared, tmp_path):
    """Also the last of its seed, which found the shared resources as two runs before it left them."""
    own = [f"output={tmp_path}", "name=one", "seed=2", "method.name=fedstil", "method.relevance=uniform"]
    done = alone("-m", "fedstil_mpi.run", TINY, SMALL, *own)
    assert done.returncode == 0, done.stderr
    assert not different(results(compared[0] / "fedstil-2"), results(tmp_path / "one"))
    assert different(results(compared[0] / "fedstil-1"), results(tmp_path / "one"))


def test_one_report_of_all_variants(compared):
    text = (compared[0] / "report" / "report.md").read_text()
    assert all(label in text for label in VARIANTS)
    written = {path.suffix for path in (compared[0] / "report").iterdir()}
    assert written - {".html"} == {".md", ".png", ".csv"}


def test_another_comparison_is_refused_in_the_same_folder(interrupted, compared):
    refused = alone(*command(config(interrupted[0]), "train.lr=0.5"))
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith(
        f"fedstil_mpi: {compared[0] / 'alone-1'} holds a run with other settings (train.lr = 0.001, now 0.5)"
    )
