import math

import pytest
import torch
from torch.nn.functional import normalize

from fedstil_mpi.client.metric import Metric, differences, load_metric, save_metric
from fedstil_mpi.evaluation.search import Search
from fedstil_mpi.util.errors import InputError
from support import tiny
from support.cases import STEADY

STREAMS = [
    [tiny.task(1, 2, seed=1), tiny.task(3, 4, seed=2)],
    [tiny.task(2, 5, seed=3), tiny.task(1, 6, seed=4)],
    [tiny.task(7, 8, seed=5), tiny.task(9, 10, seed=6)],
]
ALL = [0, 1, 2]
SETTINGS = {"train.steps": 2, "train.batch": 8, "rounds.per_task": 2, "memory.size": 6, "prototypes.exchange": True}


def federation(metric: bool = True, method: str = "fedavg") -> tiny.Federation:
    return tiny.federation(tiny.experiment(SETTINGS | STEADY | {"prototypes.metric": metric}, method), STREAMS)


def exchanged() -> tiny.Federation:
    """After three rounds and what is sent before a fourth."""
    result = federation()
    for number in (1, 2, 3):
        result.play(number, ALL)
    result.distribute(4, ALL)
    return result


def searched(side) -> torch.Tensor:
    return Search(side.learner).joined.features


def test_by_hand():
    """One difference along the first axis: there features are multiplied by 1 / sqrt(1 + 1 / 3), whatever its length."""
    for length in (0.01, 1.0):
        metric = Metric.across_cameras(torch.tensor([[length, 0.0, 0.0]]), shrinkage=3.0)
        found = metric(torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 2.0]]))
        torch.testing.assert_close(found, torch.tensor([[0.6 * math.sqrt(3 / 4), 0.8, 0.0], [0.0, 0.0, 1.0]]))


@pytest.mark.parametrize("people", [3, 9])
def test_it_is_the_shrunk_covariance_to_the_power_of_minus_a_half(people):
    torch.manual_seed(1)
    apart, features = torch.randn(people, 5).double(), torch.randn(4, 5).double()
    covariance = apart.T @ apart / people
    scale = 0.7 * covariance.trace() / min(people, 5)
    values, vectors = torch.linalg.eigh(torch.eye(5).double() + covariance / scale)
    dense = vectors @ torch.diag(values**-0.5) @ vectors.T
    torch.testing.assert_close(Metric.across_cameras(apart, 0.7)(features), normalize(features, dim=1) @ dense)


def test_strangers_are_found_across_cameras_that_differ_as_they_do_for_people_met():
    torch.manual_seed(2)
    shift, everybody = normalize(torch.randn(32), dim=0), torch.arange(20)

    def seen(people: torch.Tensor) -> torch.Tensor:
        return normalize(people + 8 * torch.randn(20, 1) * shift, dim=1)

    met, strangers = torch.randn(20, 32), torch.randn(20, 32)
    metric = Metric.across_cameras(differences(seen(met), everybody, seen(met), everybody), 0.1)
    query, gallery = seen(strangers), seen(strangers)
    assert ((query @ gallery.T).argmax(1) == everybody).sum() <= 12
    query, gallery = (normalize(metric(features), dim=1) for features in (query, gallery))
    assert ((query @ gallery.T).argmax(1) == everybody).all()


def test_differences_are_of_the_same_people_only():
    here, there = torch.eye(3)[[0, 1]], torch.eye(3)[[2, 1, 0]]
    found = differences(here, torch.tensor([5, 6]), 7 * there, torch.tensor([6, 8, 6]))
    assert found.tolist() == [[0, 1, -1], [-1, 1, 0]]


def test_nobody_trains_or_sends_otherwise_for_it():
    tiny.play_alike(federation(metric=False), federation(), 3, ALL)


def test_what_is_searched_after_an_exchange_is_compared_by_the_metric_of_prototypes():
    result = exchanged()
    side = result.clients[0]
    plain, tail = searched(side), side.learner.tail.eval()
    relayed = {int(part.pids): part.representations for part in side.learner.relayed}
    assert set(relayed) == {1, 2}  # met here in the first task, by the others in both of theirs
    own = torch.cat([side.learner.identity_prototypes(0)]).view(2, *relayed[1].shape[1:])
    with torch.no_grad():
        apart = [normalize(tail.features(own[[p - 1]])) - normalize(tail.features(relayed[p])) for p in relayed]
    with side.serving():
        torch.testing.assert_close(searched(side), Metric.across_cameras(torch.cat(apart), 1.0)(plain))
    assert torch.equal(searched(side), plain)
    result.learn(4, ALL)
    trained = searched(side)
    with side.serving():
        assert torch.equal(searched(side), trained)


def test_a_client_that_shares_nobody_is_searched_as_before():
    result = exchanged()
    side = result.clients[2]
    plain = searched(side)
    with side.serving():
        assert torch.equal(searched(side), plain)


def test_a_model_that_has_diverged_has_no_metric():
    result = exchanged()
    side = result.clients[0]
    with torch.no_grad():
        next(side.learner.tail.parameters()).fill_(torch.nan)
    side.learner.experiment.train.on_divergence = "continue"
    with side.serving():
        assert searched(side).isnan().all()


def test_it_is_read_back_as_it_was_written_and_no_other(tmp_path):
    metric = Metric.across_cameras(torch.randn(3, 5), 1.0)
    file = tmp_path / "models" / "metric.safetensors"
    save_metric(file, metric)
    assert all(torch.equal(one, other) for one, other in zip(load_metric(file, 5), metric, strict=True))
    with pytest.raises(InputError, match="no metric of 4 features"):
        load_metric(file, 4)
