"""The example of a method in docs/extending.md is a method."""

import pytest
import torch

from support import tiny
from support.documents import example

STREAMS = [[tiny.task(1, 2, seed=1)], [tiny.task(3, 2, seed=2)], [tiny.task(5, 4, seed=3)]]


@pytest.fixture
def fedavgm(tmp_path) -> str:
    """The documented method, in a file of the user's own."""
    code = example("FedAvgM")
    (tmp_path / "fedavgm.py").write_text(code)
    return str(tmp_path / "fedavgm.py")


def served(method: str, rounds: int, **options: float) -> torch.Tensor:
    """The server's weights after these rounds, [P]."""
    settings = {"train.steps": 2, "train.batch": 8} | {f"method.{key}": value for key, value in options.items()}
    federation = tiny.federation(tiny.experiment(settings, method), STREAMS)
    for number in range(1, rounds + 1):
        federation.play(number, range(3))
    return federation.server.knowledge([0])["weights"]


def test_it_trains(fedavgm):
    assert torch.isfinite(served(fedavgm, 3)).all()


def test_its_momentum_is_what_it_says(fedavgm):
    start = tiny.federation(tiny.experiment(method="fedavg"), STREAMS).server.theta_P
    assert torch.equal(served(fedavgm, 3, momentum=0.0), served("fedavg", 3))
    first = served(fedavgm, 1, momentum=0.5)
    assert torch.equal(first, served("fedavg", 1))  # there is no step before the first
    plain = tiny.federation(
        tiny.experiment({"train.steps": 2, "train.batch": 8, "method.momentum": 0.5}, fedavgm), STREAMS
    )
    plain.play(1, range(3))
    plain.server.collect([0, 1, 2], {"weights": torch.zeros(3, len(start)), "samples": torch.ones(3, 1)})
    torch.testing.assert_close(plain.server.theta_P - first, 0.5 * (first - start))
