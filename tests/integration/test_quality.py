"""Is it worth it? FedSTIL against learning alone and against FedAvg, each with the same rehearsal."""

import json
import os
from pathlib import Path

import h5py
import pytest

from support.launch import alone, mpirun

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def rank1(tmp_path):
    """(methods, config, overrides) -> the served models' rank-1 in percent at the end, mean over clients, by method."""

    def run(methods, config, *overrides):
        variants = {method: {"method.name": method} for method in methods}
        plan = {"base": str(CONFIGS / config), "name": "quality", "output": str(tmp_path), "variants": variants}
        (tmp_path / "compare.json").write_text(json.dumps(plan | {"seeds": [2]}))  # JSON is YAML
        command = [
            "-m",
            "fedstil_mpi.compare",
            tmp_path / "compare.json",
            "placement.threads=1",
            "evaluation.gallery=task",
        ]
        command += overrides
        done = mpirun(3, command, timeout=600) if "fedavg" in methods else alone(*command)
        assert done.returncode == 0, done.stderr
        found = {}
        for method in methods:
            with h5py.File(tmp_path / "quality" / f"{method}-2" / "results.h5") as file:
                found[method] = file["served/final/rank1"][()].mean()
        return found

    return run


@pytest.mark.long
def test_exchange_pays_on_the_synthetic_stream(rank1):
    """Two of the quickstart's six tasks; all six are in bench/quickstart.md."""
    found = rank1(("single", "fedavg", "fedstil"), "quickstart.yaml", "data.tasks=2", "data.synthetic.strangers=0")
    assert found["fedstil"] > found["single"] + 4
    assert found["fedstil"] > found["fedavg"]


@pytest.fixture
def pku():
    """The overrides for the real images."""
    images, weights = os.environ.get("FEDSTIL_PKU"), os.environ.get("FEDSTIL_WEIGHTS")
    if not images or not weights:
        pytest.skip("the environment variables FEDSTIL_PKU (images) and FEDSTIL_WEIGHTS (a file) are not set")
    return f"data.path={images}", f"model.weights={weights}"


@pytest.mark.slow
def test_exchange_pays_on_two_tasks_of_real_images(rank1, pku):
    """Between the two clients who meet the same people."""
    found = rank1(("single", "fedstil"), "pku.yaml", "train.steps=12", "data.tasks=2", "data.clients=[0,2]", *pku)
    assert found["fedstil"] > found["single"] + 12


@pytest.mark.long
def test_exchange_pays_on_real_images(rank1, pku):
    found = rank1(("single", "fedavg", "fedstil"), "pku.yaml", "train.steps=12", *pku)
    assert found["fedstil"] > found["single"] + 8
    assert found["fedstil"] > found["fedavg"]
