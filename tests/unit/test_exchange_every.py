"""Fewer exchanges: who exchanges when, what then travels, and that both ends agree as if it were in every round."""

from dataclasses import replace

import pytest
import torch

from fedstil_mpi import methods
from fedstil_mpi.comm.ledger import DOWN, UP
from fedstil_mpi.config.schema import Participation
from fedstil_mpi.data.sources import open_stream
from fedstil_mpi.federation.plan import make_plan
from fedstil_mpi.federation.schedule import Schedule, exchanges
from fedstil_mpi.util.errors import InputError
from support import played, tiny
from support.cases import FEDERATED, SETTINGS
from support.results import equal

LITTLE = SETTINGS | {"train.steps": 1}
FULL = Schedule(3, clients=3, tasks=3, per_task=2, total=6, clients_per_round=3, evaluate_every=1)
FEW = Schedule(3, clients=4, tasks=3, per_task=2, total=9, clients_per_round=2, evaluate_every=2)


def seldom(schedule, every, **participation):
    return replace(schedule, exchange_every=every, participation=Participation(**participation))


def config(method, every=1, **settings):
    of = {key.replace("__", "."): value for key, value in settings.items()}
    return tiny.experiment(LITTLE | {"rounds.per_task": 2, "rounds.exchange_every": every} | of, method)


# -- who and when ------------------------------------------------------------------------------------------------------


def test_by_hand():
    """Every second of a client's own rounds; client 2, which is behind at the end, sends although it is not there."""
    online = [[0, 1], [0, 2], [0, 1], [1]]
    assert exchanges(online, 2, range(4)) == [([0, 1], []), ([2], [0]), ([0], [1]), ([1], [0, 1, 2])]
    assert exchanges(online, 2, [0, 1])[-1] == ([1], [0, 1])  # client 2 is lost
    assert exchanges(online, 1, range(4)) == [(of_round, of_round) for of_round in online]


def test_with_all_clients_every_nth_round_and_the_last():
    schedule = seldom(replace(FULL, total=8), 3)
    everybody = [0, 1, 2]
    assert [round for round in range(1, 9) if schedule.senders(round) == everybody] == [3, 6, 8]
    assert [round for round in range(1, 9) if schedule.receivers(round) == everybody] == [1, 4, 7]
    assert schedule.first_upload == 3


@pytest.mark.parametrize("every", [2, 3, 5])
def test_nobody_is_told_anything_before_it_has_told_all(every):
    schedule = seldom(replace(FEW, total=40), every, late=0.5, dropout=0.3)
    behind = dict.fromkeys(range(4), 0)
    for round, online in schedule.rounds():
        assert all(behind[client] == 0 for client in schedule.receivers(round))
        for client in online:
            behind[client] += 1
        assert round == 40 or all(behind[client] == every for client in schedule.senders(round))
        behind |= dict.fromkeys(schedule.senders(round), 0)
    assert not any(behind.values())


def test_more_than_there_are_rounds_is_refused():
    experiment = config("fedavg", every=7)
    experiment = replace(experiment, rounds=replace(experiment.rounds, total=6))
    with pytest.raises(InputError, match="exchange_every = 7, but there are 6 rounds"):
        make_plan(experiment, methods.load("fedavg"), open_stream(experiment.data, 1))


# -- what travels ------------------------------------------------------------------------------------------------------


def test_bytes_by_hand():
    """Six rounds, an exchange in every fourth: up after rounds 4 and 6, down before round 5 and at the end."""
    booked = played.play(config("fedavg", 4), played.THREE, seldom(FULL, 4)).exchange.ledger
    weights = 4 * (6 * 4 * 9 + 12 * 6)
    expected = {(UP, 4): weights + 8, (UP, 6): weights + 8, (DOWN, 5): weights, (DOWN, 7): weights}
    for client in range(3):
        sums = {(way, round): booked.total(way, round, client) for way in (DOWN, UP) for round in range(2, 8)}
        assert {where: size for where, size in sums.items() if size} == expected


def test_a_message_is_about_all_rounds_since_the_last():
    """Three tasks of two rounds, an exchange in every fourth: the people of two tasks, and the images of four rounds."""
    side = tiny.federation(config("fedavg", 4, prototypes__exchange=True), played.THREE[:1])
    client = side.clients[0]
    side.distribute(1, [0])
    samples = []
    for round in range(1, 5):
        side.learn(round, [0])
        samples.append(client.learner.samples)
    update = client.update()
    assert update["people"][:, 0].tolist() == [1, 2, 2, 3, 4]
    expected = [client.learner.identity_prototypes(task) for task in (0, 1)]
    assert torch.equal(update["prototypes"], torch.cat(expected))
    assert update["samples"].tolist() == [sum(samples)]
    side.collect(4, [0])
    side.distribute(5, [0])
    side.learn(5, [0])
    assert client.update()["people"][:, 0].tolist() == [5]


# -- both ends ---------------------------------------------------------------------------------------------------------

AWAY = {"late": 0.5, "late_until": 4, "dropout": 0.3}


@pytest.mark.parametrize(
    "codecs", [{}, {"compression__up": "ternary", "compression__down": "int4", "compression__rows": "known"}]
)
@pytest.mark.parametrize("method", ["fedfomo", "fedstil", "fedstil_atten", "pfedgraph"])
def test_the_server_knows_every_client_to_the_last_bit(method, codecs):
    """Also late joiners that come between two exchanges."""
    played.play_with_both_ends(config(method, 3, **codecs), played.FOUR, seldom(replace(FEW, total=12), 3, **AWAY))


def test_what_one_client_alone_learns_does_not_depend_on_it():
    """FedAvg of one client is that client, but for rounding."""
    alone = replace(FULL, clients=1, clients_per_round=1)
    often, once = (
        played.play(config("fedavg", every), played.THREE[:1], seldom(alone, every)).server.theta_P for every in (1, 6)
    )
    torch.testing.assert_close(often, once, rtol=0, atol=1e-6)


class Metrics(tiny.Found):
    def __init__(self):
        self.found = []

    def evaluation(self, round, view, metrics):
        self.found.append(metrics)


def test_methods_that_send_nothing_do_not_change():
    often, seldom_ = Metrics(), Metrics()
    played.play(config("ewc"), played.THREE, FULL, observer=often)
    played.play(config("ewc", 4), played.THREE, seldom(FULL, 4), observer=seldom_)
    assert all(equal(*pair) for pair in zip(often.found, seldom_.found, strict=True))


@pytest.mark.parametrize("method", FEDERATED)
def test_plan_counts_what_passes(method):
    schedule = seldom(FEW, 3, **AWAY)
    settings = config(method, 3, prototypes__exchange=True)
    real, counted = (engine(settings, played.FOUR, schedule) for engine in (played.play, played.count))
    assert real.exchange.ledger.difference(counted.exchange.ledger) == []
    passes = [[learner.forward_counts for learner in played.learners(f)] for f in (real, counted)]
    assert passes[0] == passes[1]
