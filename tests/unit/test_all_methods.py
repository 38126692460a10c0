"""What holds for every method there is."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from fedstil_mpi import methods
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.models.network import network_state
from fedstil_mpi.planning import forecast
from support import played, tiny
from support.cases import PRESETS, SETTINGS, STEADY, STREAMS


@cache
def play(method: str, preset: str, clients: int = 3) -> tuple[tiny.Federation, dict, dict]:
    """A federation after four rounds, and the start model's state before and after."""
    start = tiny.network()
    start.stem.norm.running_mean += 0.3
    before = {name: tensor.clone() for name, tensor in network_state(start).items()}
    steady = STEADY | {"evaluation.protocol": "market"}
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
        found = tiny.search(side.learner, side.tail_for)
        assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize(("method", "preset"), PRESETS)
def test_rounds_go_on_and_nobody_is_found_where_all_have_diverged_and_play_on(method, preset):
    diverging = {"train.lr": 1e30, "train.steps": 4, "train.on_divergence": "continue"}
    federation = tiny.federation(tiny.experiment(SETTINGS | STEADY | diverging, method, preset), STREAMS)
    for number in range(1, 4):
        federation.play(number, range(3))
    federation.distribute(4, range(3))
    assert (federation.search()[..., :5] == 0).all()


@pytest.mark.parametrize(("method", "preset"), PRESETS)
def test_a_lone_client_is_served(method, preset):
    federation, _, _ = play(method, preset, clients=1)
    side = federation.clients[0].learner
    assert all(torch.isfinite(tensor).all() for tensor in side.tail.state_dict().values())


# -- the prediction and what really passes -----------------------------------------------------------------------------

TWO_OF_FOUR = Schedule(3, clients=4, tasks=3, per_task=2, total=7, clients_per_round=2, evaluate_every=1)
LITTLE = STEADY | {"rounds.per_task": 2, "memory.size": 0, "train.steps": 1}
LISTS = {"method.importance": "round", "method.data": "query", "method.dispatch": "lists"}
MORE = [
    ("fedavg", "best", {}),
    ("fedcurv", "paper", {"method.norms": "averaged"}),
    ("fedcurv", "best", {"method.importance": "round"}),
    ("fedcurv", "best", LISTS),
    ("fedstil", "best", {}),
    ("fedstil", "paper", {"method.relevance": "overlap"}),
    ("fedweit", "best", {"method.knowledge": 2}),
    ("fedweit", "paper", {"method.knowledge": 0}),
]


def check_counted(config, streams, schedule):
    """What clients that train send, and pass, is what a plan counts; returns what they sent."""
    real, counted = (engine(config, streams, schedule) for engine in (played.play, played.count))
    assert real.exchange.ledger.difference(counted.exchange.ledger) == []
    passes = [[learner.forward_counts for learner in played.learners(f)] for f in (real, counted)]
    assert passes[0] == passes[1]
    return real.exchange.ledger


@pytest.mark.parametrize(
    ("method", "preset", "settings"), [*((*of, {"prototypes.exchange": True}) for of in PRESETS), *MORE]
)
def test_prediction_is_what_passes(method, preset, settings):
    """Also to late joiners, and with prototypes beside."""
    ledger = check_counted(tiny.experiment(LITTLE | settings, method, preset), played.FOUR, TWO_OF_FOUR)
    assert {entry.round for entry in ledger.entries if entry.kind == "model"} > {1}


@pytest.mark.long
@pytest.mark.parametrize(("method", "preset"), [of for of in PRESETS if of[1] != "best"])
def test_prediction_of_rounds_with_all_clients(method, preset):
    config = tiny.experiment(LITTLE | {"prototypes.exchange": True}, method, preset)
    check_counted(config, played.FOUR, replace(TWO_OF_FOUR, clients_per_round=4))


@pytest.mark.parametrize("method", methods.names())
def test_prediction_with_a_memory_and_all_galleries(method):
    galleries = ["all", "client", "task"]
    settings = {"train.steps": 2, "train.batch": 6, "rounds.per_task": 1, "evaluation.gallery": galleries}
    schedule = Schedule(3, clients=3, tasks=3, per_task=1, total=3, clients_per_round=3, evaluate_every=1)
    config = tiny.experiment(settings, method)
    assert set(forecast.bounds(config).values()) == {"exactly"}
    check_counted(config, played.THREE, schedule)
