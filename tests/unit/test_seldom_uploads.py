"""Adaptive uploads: a client sends once it has moved enough, both ends agree as if it always did, and the plan bounds it."""

import pytest
import torch

from fedstil_mpi.comm.ledger import DOWN, UP
from fedstil_mpi.config.schema import Participation
from fedstil_mpi.federation.schedule import Schedule
from support import played, tiny
from support.cases import FEDERATED, SETTINGS, STREAMS

SELDOM = Schedule(
    *(3, 4, 3, 2, 12, 2, 2),
    participation=Participation(late=0.5, late_until=4, dropout=0.3),
)
"""Seed, clients, tasks, rounds of a task, rounds, clients in each, evaluations."""
CODED = {"compression.up": "ternary_entropy", "compression.down": "int4", "compression.rows": "known"}


def config(method, above, settings=None):
    of = SETTINGS | {"train.steps": 1, "rounds.per_task": 2, "compression.upload_above": above}
    return tiny.experiment(of | (settings or {}), method)


def uploads(ledger):
    """(round, client) of those that brought weights, and of all."""
    up = [entry for entry in ledger.entries if entry.direction == UP]
    return {entry[:2] for entry in up if entry.kind == "weights"}, {entry[:2] for entry in up}


def test_a_client_that_never_moves_enough_sends_headers_alone():
    f = played.play(config("fedavg", 10), played.THREE, Schedule(3, 3, 3, 2, 6, 3, 1))
    brought, all_of_them = uploads(f.exchange.ledger)
    assert (len(brought), len(all_of_them)) == (0, 18)
    assert f.exchange.ledger.total(UP) == 18 * (8 + 8)  # that nothing follows, and how many images there were
    assert torch.equal(f.server.inner.theta_P, f.server.setup.start)
    assert all(side.unsent.norm() > 0 for side in f.clients.values())


def test_it_sends_when_all_that_waits_is_enough():
    """FedAvg of one client: what waited arrives with what came after it, to the last bit, and nothing waits any more."""
    f = tiny.federation(config("fedavg", 0.03), STREAMS[:1])
    (side,), theta_P = f.clients, f.server.inner.theta_P.clone()
    waiting, brought = torch.zeros_like(theta_P), []
    for number in range(1, 9):
        f.distribute(number, [0])
        f.learn(number, [0])
        waiting += side.inner.theta() - side.inner.start
        enough = waiting.norm() >= 0.03 * theta_P.norm()
        f.collect(number, [0])
        brought.append(bool(enough))
        if enough:
            theta_P += waiting
            waiting.zero_()
        assert torch.equal(f.server.inner.theta_P, theta_P)
        assert torch.equal(side.inner.theta(), theta_P)
        assert torch.equal(side.unsent, waiting)
    assert {round for round, _ in uploads(f.ledger)[0]} == {round for round, sent in enumerate(brought, 1) if sent}
    assert 0 < sum(brought) < 8


@pytest.mark.parametrize("codecs", [{}, CODED], ids=["dense", "coded"])
@pytest.mark.parametrize("method", ["fedfomo", "fedstil", "fedstil_atten", "pfedgraph"])
def test_the_server_knows_every_client_to_the_last_bit(method, codecs):
    """Late joiners, too, and whoever has never sent anything."""
    f = played.play_with_both_ends(config(method, 0.03, codecs), played.FOUR, SELDOM)
    brought, all_of_them = uploads(f.exchange.ledger)
    assert 0 < len(brought) < len(all_of_them)


@pytest.mark.parametrize("codecs", [{}, CODED], ids=["dense", "coded"])
@pytest.mark.parametrize("method", FEDERATED)
def test_plan_counts_what_passes_at_most(method, codecs):
    settings = config(method, 0.03, codecs | {"prototypes.exchange": True})
    real, counted = (engine(settings, played.FOUR, SELDOM).exchange.ledger for engine in (played.play, played.count))
    assert counted.difference(real) == []
    assert real.total(UP) < counted.total(UP)
    assert real.total(DOWN) <= counted.total(DOWN)


def test_what_may_not_be_left_out_is_missed():
    settings = config("fedavg", 0.03)
    real, counted = (engine(settings, played.FOUR, SELDOM).exchange.ledger for engine in (played.play, played.count))
    down = next(entry for entry in real.entries if (entry.direction, entry.kind) == (DOWN, "weights"))
    real.entries.remove(down)
    assert counted.difference(real) == [f"only here: {down}"]
    real.book(*down)
    real.book(*down)
    assert counted.difference(real) == [f"only there: {down}"]
