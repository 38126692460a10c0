"""Is it worth it? FedSTIL against learning alone and against FedAvg, each with the same rehearsal."""

import os
from pathlib import Path

import h5py
import pytest
from launch import mpirun

CONFIGS = Path(__file__).parents[2] / "configs"
METHODS = ("single", "fedavg", "fedstil")


@pytest.fixture(scope="module")
def rank1(tmp_path_factory):
    """(config, overrides) -> the served models' rank-1 in percent at the end, mean over clients, by method."""

    def run(config, *overrides):
        folder = tmp_path_factory.mktemp(config)
        found = {}
        for method in METHODS:
            settings = [f"output={folder}", f"name={method}", f"method.name={method}", "placement.threads=1"]
            command = ["-m", "fedstil_mpi.run", CONFIGS / f"{config}.yaml", *settings, *overrides]
            done = mpirun(3, command, timeout=600)
            assert done.returncode == 0, done.stderr
            with h5py.File(folder / method / "results.h5") as file:
                found[method] = file["served/final/rank1"][()].mean()
        return found

    return run


@pytest.mark.slow
def test_exchange_pays_on_the_synthetic_stream(rank1):
    """Four of the quickstart's six tasks; all six are in bench/quickstart.md."""
    found = rank1("quickstart", "data.tasks=4")
    assert found["fedstil"] > found["single"] + 4
    assert found["fedstil"] > found["fedavg"]


@pytest.mark.slow
def test_exchange_pays_on_real_images(rank1):
    images, weights = os.environ.get("FEDSTIL_PKU"), os.environ.get("FEDSTIL_WEIGHTS")
    if not images or not weights:
        pytest.skip("the environment variables FEDSTIL_PKU (images) and FEDSTIL_WEIGHTS (a file) are not set")
    found = rank1("pku", f"data.path={images}", f"model.weights={weights}", "seed=2")
    assert found["fedstil"] > found["single"] + 8
    assert found["fedstil"] > found["fedavg"]
