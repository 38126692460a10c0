import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from fedstil_mpi.client import elsewhere
from fedstil_mpi.client.comparison import Comparison, load_comparison, save_comparison
from fedstil_mpi.client.metric import Metric, differences
from fedstil_mpi.evaluation.search import Search
from fedstil_mpi.models.files import write_tensors
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


def federation(metric: bool = True, norms: float = 0.0) -> tiny.Federation:
    more = {"prototypes.metric": metric, "prototypes.norms": norms}
    return tiny.federation(tiny.experiment(SETTINGS | STEADY | more, "fedavg"), STREAMS)


def exchanged(metric: bool = True, norms: float = 0.0) -> tiny.Federation:
    """After three rounds and what is sent before a fourth."""
    result = federation(metric, norms)
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
    tiny.play_alike(federation(metric=False), federation(norms=0.5), 3, ALL)


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
    result = exchanged(norms=0.5)
    side = result.clients[2]
    plain = searched(side)
    with side.serving():
        assert torch.equal(searched(side), plain)


@pytest.mark.parametrize("norms", [0, 0.5])
def test_a_model_that_has_diverged_has_no_metric(norms):
    result = exchanged(norms=norms)
    side = result.clients[0]
    with torch.no_grad():
        next(side.learner.tail.parameters()).fill_(torch.nan)
    side.learner.experiment.train.on_divergence = "continue"
    with side.serving():
        assert searched(side).isnan().all()


class Small(torch.nn.Module):
    """Two layers with batch norms whose statistics and slopes are any."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.trunk = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 1),
            torch.nn.BatchNorm2d(4),
            torch.nn.ReLU(),
            torch.nn.Conv2d(4, 5, 3),
            torch.nn.BatchNorm2d(5),
        )
        for norm in (self.trunk[1], self.trunk[4]):
            for tensor in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
                tensor.uniform_(0.5, 2)
        self.classifier = torch.nn.Linear(5, 2)
        self.eval()

    def features(self, maps: torch.Tensor) -> torch.Tensor:
        return self.trunk(maps).mean((2, 3))


def test_what_a_camera_adds_to_everybody_is_taken_off_by_the_norms():
    """A camera that adds the same colour everywhere is seen as the client's own, through all layers, and strangers by it are, too."""
    tail = Small()
    people, strangers, cast = (
        torch.randn(6, 3, 4, 4),
        torch.randn(3, 3, 4, 4),
        torch.tensor([0.7, -0.4, 1.0]).view(3, 1, 1),
    )
    norms, here, there = elsewhere.fit(tail, people, people + cast, 1.0)
    torch.testing.assert_close(there, here)
    assert torch.equal(here, tail.features(people))
    with elsewhere.from_elsewhere(tail, norms):
        torch.testing.assert_close(tail.features(strangers + cast), Small().features(strangers))
    assert torch.equal(tail.features(people), here)


@torch.no_grad()
def test_norms_are_moved_by_a_share_layer_by_layer():
    """By hand: the first by a quarter of the way of what reaches it, the second of what reaches it then."""
    tail = Small()
    here, there = torch.randn(5, 3, 4, 4), 2 * torch.randn(7, 3, 4, 4) + 1
    norms, _, features = elsewhere.fit(tail, here, there, 0.25)
    first, second = tail.trunk[1], tail.trunk[4]

    def expect(name: str, norm: torch.nn.BatchNorm2d, one: torch.Tensor, other: torch.Tensor) -> None:
        (mean, v), (one_mean, one_v), (other_mean, other_v) = (
            (norm.running_mean, norm.running_var),
            *((maps.mean((0, 2, 3)), maps.var((0, 2, 3), correction=0)) for maps in (one, other)),
        )
        torch.testing.assert_close(norms[f"{name}.running_mean"], mean + (other_mean - one_mean) / 4)
        ratio = (other_v + v) / (one_v + v)
        torch.testing.assert_close(norms[f"{name}.running_var"], v * ratio.sqrt().sqrt(), rtol=1e-4, atol=0)

    expect("trunk.1", first, tail.trunk[0](here), tail.trunk[0](there))
    reaches = tail.trunk[:4](here)
    first.running_mean, first.running_var = norms["trunk.1.running_mean"], norms["trunk.1.running_var"]
    expect("trunk.4", second, reaches, tail.trunk[:4](there))
    assert set(norms) == {f"trunk.{place}.running_{what}" for place in (1, 4) for what in ("mean", "var")}
    second.running_mean, second.running_var = norms["trunk.4.running_mean"], norms["trunk.4.running_var"]
    torch.testing.assert_close(features, tail.features(there))
    assert elsewhere.fit(tail, here, there, 0)[0] == {}


def test_a_single_known_person_does_not_blow_up_a_variance():
    """Of one vector there is no variance here, and any there: it at most doubles what is usual."""
    norm = torch.nn.BatchNorm1d(4).eval()
    norm.running_var.fill_(0.5)
    tail = SimpleNamespace(named_modules=lambda: [("neck", norm)], features=norm)
    norms, _, features = elsewhere.fit(tail, torch.zeros(1, 4), torch.tensor([[-0.5] * 4, [0.5] * 4]), 1.0)
    torch.testing.assert_close(norms["neck.running_var"], torch.full((4,), 0.5 * 1.5), rtol=1e-4, atol=0)  # 0.25 there
    assert features.isfinite().all()


def test_pictures_by_own_and_by_unknown_cameras_pass_as_ever():
    tail, maps = Small(), torch.randn(5, 3, 4, 4)
    norms, _, _ = elsewhere.fit(tail, maps, maps + 1, 0.5)
    plain = tail.features(maps)
    with elsewhere.from_elsewhere(tail, norms):
        away = tail.features(maps)
    found = Comparison(None, norms, frozenset({3, 4})).features(tail, maps, np.array([3, 0, -1, 4, 7]))
    torch.testing.assert_close(found, torch.stack([plain[0], away[1], plain[2], plain[3], away[4]]))
    assert not torch.allclose(plain, away)


def test_a_client_is_searched_with_norms_for_what_its_own_cameras_did_not_see():
    result = exchanged(metric=False, norms=0.5)
    side = result.clients[0]
    assert set(side.learner.tasks[0].train.cameras) != set(side.learner.tasks[0].gallery.cameras)
    plain = searched(side)
    with side.serving():
        comparison, changed = side.comparison(), searched(side)
    assert comparison.metric is None
    moved = (changed != plain).any(1)
    by_others = ~np.isin(Search(side.learner).joined.labels[:, 1], list(comparison.cameras))
    assert moved.tolist() == by_others.tolist()
    assert moved.any()


@pytest.mark.parametrize("known", [True, False])
def test_where_own_cameras_are_not_known_no_picture_is_taken_for_one_from_elsewhere(known):
    result = exchanged(metric=False, norms=0.5)
    side = result.clients[0]
    learner = side.learner
    for number, task in enumerate(learner.tasks):
        cameras = task.train.cameras if known else np.full(len(task.train), -1)
        learner.tasks[number] = replace(task, train=replace(task.train, cameras=cameras))
    with side.serving():
        comparison = side.comparison()
    assert bool(comparison.norms) == bool(comparison.cameras) == known


def test_a_norm_that_is_given_something_else_than_pictures_stays_as_it_is():
    """Such as four parts of each picture, all of one picture before those of the next, or of all pictures by turns."""
    norm = torch.nn.BatchNorm1d(3).eval()
    tail = SimpleNamespace(
        named_modules=lambda: [("neck", norm)], features=lambda maps: norm(maps.flatten(0, 1)).view(-1, 12)
    )
    here, there = torch.randn(2, 4, 3), torch.randn(3, 4, 3) + 1
    norms, own, others = elsewhere.fit(tail, here, there, 0.5)
    assert norms == {}
    torch.testing.assert_close(torch.cat([own, others]), tail.features(torch.cat([here, there])))


def test_it_is_read_back_as_it_was_written_and_no_other(tmp_path):
    tail = Small()
    maps = torch.randn(3, 3, 4, 4)
    norms, here, there = elsewhere.fit(tail, maps, maps + 1, 0.5)
    metric = Metric.across_cameras(here - 2 * there, 1.0)
    file = tmp_path / "models" / "comparison.safetensors"
    for kept in (
        Comparison(metric, norms, frozenset({1, 5})),
        Comparison(metric, {}, frozenset()),
        Comparison(None, norms, frozenset({2})),
    ):
        save_comparison(file, kept)
        back = load_comparison(file, tail)
        assert torch.equal(back.features(tail, maps, np.arange(3)), kept.features(tail, maps, np.arange(3)))
        assert back.cameras == kept.cameras
    other = Small()
    other.trunk[4] = torch.nn.BatchNorm2d(6)
    with pytest.raises(InputError, match="of such a model"):
        load_comparison(file, other)
    save_comparison(file, Comparison(metric, {}, frozenset()))
    other.classifier = torch.nn.Linear(4, 2)
    with pytest.raises(InputError, match="compares no 4 features"):
        load_comparison(file, other)


@pytest.mark.parametrize(
    "damage",
    [
        {"gains_R": torch.tensor([math.nan])},
        {"gains_R": torch.ones(1).double()},
        {"norms.trunk.1.running_var": torch.full((4,), math.inf)},
        {"norms.trunk.1.num_batches_tracked": torch.tensor(0.0)},
        {"cameras": torch.tensor([1.0])},
        {"cameras": torch.tensor(1)},
        {"cameras": None},
    ],
)
def test_a_damaged_one_is_refused(tmp_path, damage):
    tail = Small()
    whole = {
        "directions_RF": torch.eye(5)[:1],
        "gains_R": torch.ones(1),
        "norms.trunk.1.running_var": torch.ones(4),
        "cameras": torch.tensor([1, 2]),
    }
    file = tmp_path / "comparison.safetensors"
    write_tensors(file, whole)
    assert load_comparison(file, tail).cameras == {1, 2}
    write_tensors(file, {name: tensor for name, tensor in (whole | damage).items() if tensor is not None})
    with pytest.raises(InputError, match="of such a model"):
        load_comparison(file, tail)


def test_a_folder_is_no_such_file(tmp_path):
    with pytest.raises(InputError, match="is no file"):
        load_comparison(tmp_path, Small())
