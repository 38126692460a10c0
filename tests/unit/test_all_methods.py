"""What holds for every method there is."""

from functools import cache

import pytest
import torch

from fedstil_mpi.evaluation.search import evaluate
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.models.network import network_state
from support import played, tiny
from support.cases import PRESETS, SETTINGS, STREAMS


@cache
def play(method: str, preset: str, clients: int = 3) -> tuple[tiny.Federation, dict, dict]:
    """A federation after four rounds, and the start model's state before and after."""
    start = tiny.network()
    start.stem.norm.running_mean += 0.3
    before = {name: tensor.clone() for name, tensor in network_state(start).items()}
    steady = {"train.early_stop": False, "evaluation.protocol": "market"}
    federation = tiny.federation(tiny.experiment(SETTINGS | steady, method, preset), STREAMS[:clients], start)
    for number in range(1, 5):
        federation.play(number, range(clients))
    federation.distribute(5, range(clients))
    return federation, before, network_state(start)


@pytest.mark.parametrize(("method", "preset"), PRESETS)
def test_what_is_frozen_stays_bit_identical(method, preset):
    federation, before, after = play(method, preset)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())  # the stem and the start model
    for side in federation.clients:
        assert torch.equal(side.learner.tail.neck.weight, before["tail.neck.weight"])
        assert torch.equal(side.learner.tail.neck.bias, before["tail.neck.bias"])
        assert not torch.equal(side.learner.tail.neck.running_mean, before["tail.neck.running_mean"])


@pytest.mark.parametrize(("method", "preset"), PRESETS)
def test_models_stay_finite_and_can_be_searched(method, preset):
    federation, _, _ = play(method, preset)
    for side in federation.clients:
        state = side.learner.tail.state_dict().values()
        assert all(torch.isfinite(tensor).all() for tensor in state)
        found = evaluate(side.learner, side.tail_for)
        assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize(("method", "preset"), PRESETS)
def test_a_lone_client_is_served(method, preset):
    federation, _, _ = play(method, preset, clients=1)
    side = federation.clients[0].learner
    assert all(torch.isfinite(tensor).all() for tensor in side.tail.state_dict().values())


@pytest.mark.parametrize("drawn", [4, 2])
@pytest.mark.parametrize(("method", "preset"), PRESETS)
def test_prediction_is_what_passes(method, preset, drawn):
    """Also to late joiners, and with prototypes beside."""
    plan = Schedule(3, clients=4, tasks=3, per_task=2, total=7, clients_per_round=drawn, evaluate_every=1)
    passed, predicted = played.ledgers(method, preset, plan, {"prototypes.exchange": True})
    assert passed.difference(predicted) == []
