from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from fedstil_mpi.federation import rounds
from fedstil_mpi.methods.aids.averaging import AveragedClient
from support import tiny
from support.cases import PRESETS, STEADY

STREAMS = [
    [tiny.task(1, 2, seed=1), tiny.task(3, 4, seed=2)],
    [tiny.task(2, 5, seed=3), tiny.task(1, 6, seed=4)],
    [tiny.task(7, 8, seed=5), tiny.task(9, 10, seed=6)],
]
ALL = [0, 1, 2]
SETTINGS = {"train.steps": 2, "train.batch": 8, "rounds.per_task": 2, "memory.size": 6, "prototypes.exchange": False}


def federation(average: float, method: str = "fedavg", preset: str = "best") -> tiny.Federation:
    settings = SETTINGS | STEADY | {"serving.average": average}
    return tiny.federation(tiny.experiment(settings, method, preset), STREAMS)


def tensors(side) -> list[Tensor]:
    return [tensor.clone() for tensor in side.learner.tail.state_dict().values()]


@pytest.mark.parametrize("method", ["fedavg", "fedstil"])
def test_clients_are_searched_with_the_running_mean_of_what_exchanges_left_them_with(method):
    result = federation(0.75, method)
    side, starts = result.clients[0], []
    result.play(1, ALL)
    for number in (2, 3, 4):
        result.distribute(number, ALL)
        starts.append(side.inner.theta())
        if number < 4:
            result.learn(number, ALL)
            result.collect(number, ALL)
    by_hand = 0.75 * (0.75 * starts[0] + 0.25 * starts[1]) + 0.25 * starts[2]
    with side.serving():
        torch.testing.assert_close(side.inner.theta(), by_hand)
    assert torch.equal(side.inner.theta(), starts[2])
    assert (by_hand - starts[2]).abs().max() > 1e-4


def test_nobody_trains_otherwise_for_it():
    tiny.play_alike(federation(0.0), federation(0.75), 3, ALL)


def test_only_what_is_searched_after_an_exchange_is_the_mean():
    result, searched = federation(0.75), []
    side = result.clients[0]
    nothing = torch.full((len(result.parts.scopes.names), 2, 6), torch.nan).numpy()
    search = SimpleNamespace(evaluate=lambda *_: searched.append(side.inner.theta()) or nothing)
    result.parts.trainer.search = lambda *_: search
    for number in (1, 2):
        result.play(number, ALL)
    result.distribute(3, ALL)
    newest = side.inner.theta()
    rounds.validate(result.parts, 2, served=True)
    assert torch.equal(searched[0], side.mean)
    assert not torch.equal(searched[0], newest)
    result.learn(3, ALL)
    rounds.validate(result.parts, 3, served=False)
    assert torch.equal(searched[len(ALL)], side.inner.theta())


def test_a_client_that_stayed_away_since_it_trained_is_searched_as_it_is():
    result = federation(0.75)
    for number in (1, 2):
        result.play(number, ALL)
    result.distribute(3, [1, 2])
    newest = result.clients[0].inner.theta()
    with result.clients[0].serving():
        assert torch.equal(result.clients[0].inner.theta(), newest)


@pytest.mark.parametrize(("method", "preset"), [of for of in PRESETS if of[1] != "paper"])
def test_training_goes_on_from_the_newest_weights_to_the_last_bit(method, preset):
    result = federation(0.75, method, preset)
    for number in (1, 2, 3):
        result.play(number, ALL)
    result.distribute(4, ALL)
    before = [tensors(side) for side in result.clients]
    for side, newest in zip(result.clients, before, strict=True):
        with side.serving():
            changed = any(not torch.equal(a, b) for a, b in zip(tensors(side), newest, strict=True))
        assert changed == isinstance(side, AveragedClient)
        assert all(torch.equal(a, b) for a, b in zip(tensors(side), newest, strict=True))


def test_a_client_that_was_sent_nothing_is_searched_as_it_is():
    result = federation(0.75)
    side = result.clients[0]
    before = tensors(side)
    with side.serving():
        assert all(torch.equal(a, b) for a, b in zip(tensors(side), before, strict=True))


def test_its_state_holds_the_mean():
    result, other = federation(0.75), federation(0.75)
    for number in (1, 2, 3):
        result.play(number, ALL)
    other.clients[0].restore(result.clients[0].state())
    assert torch.equal(other.clients[0].mean, result.clients[0].mean)
