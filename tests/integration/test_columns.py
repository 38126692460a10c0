"""A server that all ranks share by columns gives the results of one on rank 0, also where the run goes on with the other."""

import json
import shutil

import pytest

from fedstil_mpi.launch.signals import PAUSED
from support import SMALL
from support.launch import codes, play
from support.results import different, lines, results

pytestmark = pytest.mark.slow

OFTEN = [SMALL, "model.num_classes=1000", "rounds.clients_per_round=2", "rounds.total=5", "prototypes.exchange=true"]
"""Of 32,000 weights that travel, in eight blocks."""
EXPERIMENTS = {
    "fedavg": ["method.name=fedavg", *OFTEN, "warmup.steps=2"],
    "fedcurv": ["method.name=fedcurv", *OFTEN],
    "fedstil": ["method.name=fedstil", *OFTEN, "rounds.exchange_every=2", "method.server_memory=0.5"],
    "tokens": ["method.name=fedstil", "method.preset=paper", *OFTEN, "compression.first_contact=float16"],
}


def on(where, experiments=EXPERIMENTS):
    return {name: [*settings, f"placement.server={where}"] for name, settings in experiments.items()}


def unequal(folder, others):
    return [
        f"{name}: {found}"
        for name in EXPERIMENTS
        for found in (
            *different(results(folder / name), results(others / name)),
            *([] if lines(folder / name) == lines(others / name) else ["lines"]),
        )
    ]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    assert not any(codes(play(1, folder, EXPERIMENTS)).values())
    return folder


def test_results_do_not_depend_on_where_the_server_is(alone, tmp_path):
    assert not any(codes(play(3, tmp_path, on("all_ranks"))).values())
    assert not unequal(tmp_path, alone)


def test_a_run_goes_on_with_its_server_elsewhere(alone, tmp_path):
    moments = json.dumps(dict.fromkeys(EXPERIMENTS, 7))
    paused = tmp_path / "paused"
    assert set(codes(play(3, paused, on("all_ranks"), moments)).values()) == {PAUSED}
    for ranks, where in ((1, "auto"), (2, "all_ranks")):
        folder = tmp_path / f"{ranks}"
        shutil.copytree(paused, folder)
        assert not any(codes(play(ranks, folder, on(where), "{}")).values())
        assert not unequal(folder, alone)


def test_what_cannot_be_shared_is_refused(tmp_path):
    experiments = {"fedweit": ["method.name=fedweit", *OFTEN], "coded": [*EXPERIMENTS["fedavg"], "compression.up=int8"]}
    done = play(2, tmp_path, on("all_ranks", experiments))
    assert codes(done) == {"fedweit": 2, "coded": 2}
    assert done.stderr.count("placement.server = all_ranks, which fed") == 2
