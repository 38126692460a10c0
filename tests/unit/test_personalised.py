"""Personalised peers: what each of them keeps to itself, and what it takes from whom."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from fedstil_mpi import methods
from fedstil_mpi.comm.ledger import DOWN
from fedstil_mpi.methods.collaboration import collaboration_graph, first_order_weights, project
from fedstil_mpi.methods.fedfomo import SEEN
from fedstil_mpi.methods.fedstil_atten import BANK
from fedstil_mpi.models.network import adaptive_parameters, build, trainable_parameters
from fedstil_mpi.util.errors import InputError
from support import tiny
from support.cases import STREAMS

ALL = [0, 1, 2]


def federation(method, settings=None, preset="best"):
    common = {"train.steps": 3, "train.batch": 8, "rounds.per_task": 2, "memory.size": 6, "train.lr": 1e-2}
    return tiny.federation(tiny.experiment(common | (settings or {}), method, preset), STREAMS)


def after(rounds, method, settings=None):
    """Played, with the last round's knowledge distributed."""
    result = federation(method, settings)
    for number in range(1, rounds + 1):
        result.play(number, ALL)
    result.distribute(rounds + 1, ALL)
    return result


def equal_names(result):
    """The tensors that are the same at all clients."""
    one, *others = (side.learner.tail.state_dict() for side in result.clients)
    return {name for name in one if all(torch.equal(one[name], other[name]) for other in others)}


# -- FedBN -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2"])
def test_fedavg_with_local_norms_is_fedbn(backbone):
    """All that learns travels, but for the batch norms."""
    tail = build(backbone, num_classes=5, image_size=(32, 16)).tail
    fedavg = methods.load("fedavg")
    norms = {f"{name}." for name, layer in tail.named_modules() if isinstance(layer, torch.nn.BatchNorm2d)}
    others = {name for name in trainable_parameters(tail) if not name.startswith(tuple(norms))}
    assert set(fedavg.Client.travelling(tail, fedavg.Options())) == others != set(trainable_parameters(tail))


# -- FedPer ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norms", ["local", "averaged"])
def test_the_classifier_stays_with_its_client(norms):
    result = after(2, "fedper", {"method.norms": norms})
    base = {"trunk.conv.weight"} | ({"trunk.norm.weight", "trunk.norm.bias"} if norms == "averaged" else set())
    assert set(result.clients[0].setup.layout.names) == base
    constants = {"neck.weight", "neck.bias", "neck.num_batches_tracked", "trunk.norm.num_batches_tracked"}
    assert equal_names(result) == base | constants


def test_the_last_layers_stay_with_their_client():
    tail = build("mobilenet_v2", num_classes=5, image_size=(32, 16), split="features.17").tail
    fedper, layers = methods.load("fedper"), list(adaptive_parameters(tail))
    for local in range(1, len(layers)):
        options = fedper.Options(local_layers=local)
        assert list(fedper.Client.travelling(tail, options)) == layers[:-local]
    learns = list(trainable_parameters(tail))  # a norm after the last layer that travels travels with it
    averaged = fedper.Options(local_layers=2, norms="averaged")
    assert list(fedper.Client.travelling(tail, averaged)) == learns[: learns.index(layers[-2])]


def test_something_has_to_travel():
    with pytest.raises(InputError, match="local_layers = 2, but 2 layers learn; expected at most 1"):
        federation("fedper", {"method.local_layers": 2})


# -- Ditto -------------------------------------------------------------------------------------------------------------


def personal(result):
    """Travelling weights of the personal models, [K, P]."""
    setup = result.clients[0].setup
    return torch.stack([setup.layout.pack(dict(side.learner.tail.named_parameters())) for side in result.clients])


@pytest.mark.parametrize("augment", [{}, {"train.augment": "default", "train.refresh": "epoch"}])
def test_without_a_pull_the_personal_model_learns_alone(augment):
    """And what goes to the server is FedAvg's; both to the last bit."""
    alone, fedavg = after(3, "single", augment), after(3, "fedavg", augment | {"memory.size": 0})
    ditto = after(3, "ditto", augment | {"method.pull": 0.0})
    for one, other in zip(ditto.clients, alone.clients, strict=True):
        assert one.learner.fingerprint() == other.learner.fingerprint()
        assert one.learner.memory.state().keys() == other.learner.memory.state().keys()
        assert one.learner.samples == other.learner.samples
    without = after(3, "ditto", augment | {"memory.size": 0})
    assert torch.equal(without.server.theta_P, fedavg.server.theta_P)
    assert len({side.learner.fingerprint() for side in without.clients}) == 3


def test_training_twice_passes_twice_the_images():
    counts = [after(3, method).clients[0].learner.forward_counts for method in ("fedavg", "ditto")]
    assert counts[1] == counts[0] | {"train": 2 * counts[0]["train"]}


def test_a_strong_pull_keeps_the_personal_model_at_the_global_one():
    """Adam's steps are about 0.01 each, three a round: what is farther than that is left behind by no pull alone."""
    distances = []
    for pull in (0.0, 0.1, 1e4):
        result = after(6, "ditto", {"method.pull": pull})
        received = torch.stack([side.start for side in result.clients])
        distances.append((personal(result) - received).norm().item())
    assert distances[0] > distances[1] > 2 * distances[2]


def test_the_pull_by_hand():
    result = after(1, "ditto", {"method.pull": 3.0})
    side, gap = result.clients[0], personal(result)[0] - result.clients[0].start
    assert gap.norm() > 0
    loss = tiny.penalty(side, tiny.batch(1, 2), torch.zeros(2, tiny.CLASSES))
    assert loss.item() == pytest.approx(1.5 * (gap @ gap).item(), rel=1e-4)


def test_a_late_joiner_begins_with_the_global_model_twice():
    result = federation("ditto")
    result.play(1, [0, 1])
    result.distribute(2, ALL)
    assert torch.equal(personal(result)[2], result.server.theta_P)
    assert torch.equal(result.clients[2].theta(), result.server.theta_P)
    assert not torch.equal(personal(result)[0], result.server.theta_P)


# -- pFedGraph ---------------------------------------------------------------------------------------------------------


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("alpha", [0.05, 0.8, 20.0])
def test_the_graph_solves_the_quadratic_programme(alpha):
    """Held against a general solver."""
    moved, samples = torch.randn(4, 6, generator=rng(1)), torch.tensor([10, 3, 0, 7])
    graph = collaboration_graph(moved, samples, alpha).double().numpy()
    p = (samples / samples.sum()).double().numpy()
    for i, row in enumerate(graph):
        d = -torch.cosine_similarity(moved[i], moved, dim=1).double().numpy()

        def loss(w, d=d):
            return w @ d + alpha * ((w - p) ** 2).sum()

        bounds = [(0, 1 if n else 0) for n in samples.tolist()]
        whole = {"type": "eq", "fun": lambda w: w.sum() - 1}
        best = minimize(loss, p, bounds=bounds, constraints=whole, method="SLSQP", options={"ftol": 1e-14})
        assert best.success
        np.testing.assert_allclose(row, best.x, atol=1e-5)


def test_the_projection_is_the_nearest_point():
    rows = 2 * torch.randn(50, 5, generator=rng(2), dtype=torch.float64)
    nearest = project(rows)
    torch.testing.assert_close(nearest.sum(1), torch.ones(50).double())
    assert (nearest >= 0).all()
    assert (nearest == 0).any()
    corners = torch.eye(5, dtype=torch.float64)  # no way towards a corner leads nearer
    assert ((rows - nearest) @ corners.T - ((rows - nearest) * nearest).sum(1, keepdim=True) <= 1e-12).all()
    torch.testing.assert_close(project(nearest), nearest)


def test_clients_that_move_alike_share_by_samples():
    """And so does one that has not moved."""
    samples = torch.tensor([1, 2, 5])
    moved = torch.tensor([1.0, 2.0, 0.5])[:, None] * torch.randn(7, generator=rng(3))
    shares = (samples / 8).expand(3, 3)
    torch.testing.assert_close(collaboration_graph(moved, samples, 0.8), shares)
    moved[1] = 0
    torch.testing.assert_close(collaboration_graph(moved, samples, 0.8)[1], shares[1])


def test_a_client_that_has_diverged_is_like_none():
    moved, samples = torch.tensor([[1.0, 0], [torch.nan, 1], [torch.inf, 1]]), torch.tensor([5, 5, 10])
    graph = collaboration_graph(moved, samples, 10.0)
    torch.testing.assert_close(graph[1:], torch.tensor([0.25, 0.25, 0.5]).expand(2, 3))
    assert graph[0, 0] > 0.25
    assert graph[0, 2] - graph[0, 1] == pytest.approx(0.25)


def test_clients_that_move_apart_keep_to_themselves():
    moved = torch.tensor([[1.0, 0, 0], [1.0, 0.1, 0], [-1.0, 0, 1.0]])
    graph = collaboration_graph(moved, torch.tensor([5, 5, 5]), 0.1)
    assert (graph[0, :2] > 0.4).all()
    assert graph[2].tolist() == [0, 0, 1]


def test_with_a_large_alpha_it_is_fedavg():
    far, fedavg = after(1, "pfedgraph", {"method.alpha": 1e6, "method.pull": 0.0}), after(1, "fedavg")
    for one, other in zip(far.clients, fedavg.clients, strict=True):
        torch.testing.assert_close(one.theta(), other.theta(), rtol=0, atol=1e-6)


def test_both_ends_know_the_same_weights_to_the_last_bit():
    """Changing participation; client 2 joins in the third round."""
    result = federation("pfedgraph", {"method.alpha": 0.3})
    for number, online in enumerate([[0, 1], [1], [0, 2], ALL, [0], [1, 2], ALL], 1):
        result.play(number, online)
        for client in online:
            assert torch.equal(result.server.theta_KP[client], result.clients[client].theta())
    result.distribute(8, ALL)
    torch.testing.assert_close(result.server.relevance_OK.sum(1), torch.ones(3))
    assert len({side.theta().sum().item() for side in result.clients}) == 3


def test_the_pull_turns_a_client_to_its_base():
    """-lambda cos(theta, base): flat at the base, and against what turns away."""
    result = after(1, "pfedgraph", {"method.pull": 2.0})
    side, batch, scores = result.clients[0], tiny.batch(1, 2), torch.zeros(2, tiny.CLASSES)
    assert tiny.penalty(side, batch, scores).item() == pytest.approx(-2)
    side.load(-side.start)
    assert tiny.penalty(side, batch, scores).item() == pytest.approx(2)
    off = torch.randn(len(side.start), generator=rng(5))
    off -= off @ side.start / (side.start @ side.start) * side.start
    side.load(side.start + off * side.start.norm() / off.norm())
    loss = tiny.penalty(side, batch, scores)
    assert loss.item() == pytest.approx(-2 / 2**0.5)
    loss.backward()
    gradient = side.setup.layout.pack({name: parameter.grad for name, parameter in side.parameters.items()})
    assert gradient @ off > 0 > gradient @ side.start


# -- FedFomo -----------------------------------------------------------------------------------------------------------


def test_weights_by_hand():
    """Gains 2, 1 and -3 over ways of 4, 1 and 1: 0.5, 1 and nothing."""
    theta, losses = torch.tensor([[0.0, 0], [0, 4], [1, 0], [-1, 0]]), torch.tensor([5.0, 3, 4, 8])
    torch.testing.assert_close(first_order_weights(losses, theta, 0), torch.tensor([0, 1 / 3, 2 / 3, 0]))
    assert first_order_weights(torch.tensor([2.0, 3, 4, 8]), theta, 0).tolist() == [0, 0, 0, 0]
    assert first_order_weights(torch.full((4,), torch.nan), theta, 0).tolist() == [0, 0, 0, 0]
    twins = theta[[0, 0, 1, 2]]  # a model that is its own, from another client, changes nothing
    assert first_order_weights(torch.tensor([5.0, 5, 3, 4]), twins, 0)[1] == 0


@pytest.mark.parametrize("held_out", [0, 1])
def test_a_client_with_the_best_model_keeps_it(held_out):
    """To the last bit; the others come over to it, as far as it is alone to be better."""
    result = federation("fedfomo", {"method.held_out": held_out})
    for number in (1, 2):
        result.play(number, ALL)
    kept, noise = result.clients[0].theta(), 3 * torch.randn(2, 288, generator=rng(6))
    result.server.theta_KP[1:] = noise
    result.distribute(3, ALL)
    assert torch.equal(result.clients[0].theta(), kept)
    for side in result.clients[1:]:
        losses = side.losses(result.server.theta_KP, side.learner.views.tried(side.learner.task))
        weights = first_order_weights(losses, result.server.theta_KP, side.learner.client)
        assert weights.sum() == pytest.approx(1)
    result.server.theta_KP[:] = kept
    result.server.theta_KP[1] = noise[0]
    result.distribute(3, ALL)
    torch.testing.assert_close(result.clients[1].theta(), kept, rtol=0, atol=1e-5)


def test_who_was_never_seen_has_no_vote():
    """Client 2 has not come yet: what stands for it in the bank is neither tried nor taken from, and it begins with that."""
    result = federation("fedfomo")
    for number in (1, 2):
        result.play(number, [0, 1])
    kept = [side.theta() for side in result.clients[:2]]
    knowledge = result.server.knowledge(ALL)
    side = result.clients[0]
    before = side.learner.forward_counts["search"]
    result.distribute(3, ALL)
    tried = side.learner.views.tried(side.learner.task)
    assert side.learner.forward_counts["search"] - before == 2 * len(tried)
    theta_NP = torch.stack(kept)
    weights = first_order_weights(side.losses(theta_NP, tried), theta_NP, 0)
    result.distribute(3, [0])
    torch.testing.assert_close(side.theta(), kept[0] + weights @ (theta_NP - kept[0]))
    assert knowledge[SEEN].tolist() == [1, 1, 0]
    torch.testing.assert_close(result.clients[2].theta(), theta_NP.mean(0))


def test_what_is_held_out_is_not_trained_with():
    """One of four images of each person; what is counted, sent and remembered is about the others."""
    settings = {"train.steps": 0, "train.epochs": 2, "memory.size": 100, "train.augment": "none"}
    result = federation("fedfomo", settings)
    result.play(1, ALL)
    learner = result.clients[0].learner
    sets = [learner.views.trained_on(0, 1, 0), learner.views.tried(0), learner.memory.recall()]
    trained, tried, remembered = ({row.numpy().tobytes() for row in of.representations} for of in sets)
    assert (len(trained), len(tried)) == (6, 2)
    assert trained == remembered
    assert not trained & tried
    assert sets[1].pids.tolist() == [1, 2]
    assert learner.samples == 2 * 6


@pytest.mark.parametrize(("images", "held"), [(1, 0), (2, 0), (3, 1)])
def test_two_images_are_always_left_to_train_with(images, held):
    """Where none can be held out, models are tried on what is trained with."""
    result = tiny.federation(tiny.experiment({}, "fedfomo"), [[tiny.task(1, images=images)]])
    views = result.clients[0].learner.views
    assert views.held(0).sum() == held
    assert len(views.tried(0)) == (held or images)
    assert len(views.pids_trained_on(0)) == images - held


def test_all_models_come_down_to_each():
    result = after(2, "fedfomo")
    booked = [entry for entry in result.ledger.entries if entry.direction == DOWN]
    for kind, size in ((BANK, 4 * 3 * 288), (SEEN, 8 * 3)):
        of_kind = [entry for entry in booked if entry.kind == kind]
        assert [(entry.round, entry.client) for entry in of_kind] == [(n, client) for n in (2, 3) for client in ALL]
        assert {entry.raw for entry in of_kind} == {size}


def test_trying_passes_every_model_over_what_is_held_out():
    result, fedavg = federation("fedfomo", {"memory.size": 0}), federation("fedavg", {"memory.size": 0})
    for each in (result, fedavg):
        each.play(1, ALL)
        each.distribute(2, ALL)
    counts = [of.clients[0].learner.forward_counts["search"] for of in (result, fedavg)]
    assert counts == [3 * 2, 0]
