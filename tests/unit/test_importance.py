import copy
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedstil_mpi.client.learner import Learner
from fedstil_mpi.config.fields import check_values
from fedstil_mpi.methods import ewc, fedcurv, mas
from fedstil_mpi.methods.importance import fisher, per_batch, per_sample, reference_code, sensitivity, training_loss
from fedstil_mpi.methods.quadratic import Quadratic, quadratic
from fedstil_mpi.models.losses import smoothed_cross_entropy
from fedstil_mpi.models.network import trainable_parameters
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.state_tree import flatten
from support import tiny
from support.cases import STREAMS
from support.golden_files import golden

NAMES = ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]
GOLDEN = pytest.mark.parametrize("path", golden("j_importance"), ids=lambda path: path.stem)


def load(path) -> dict[str, Tensor]:
    return {key: torch.from_numpy(value) for key, value in np.load(path, allow_pickle=False).items()}


def of(case: dict[str, Tensor], prefix: str) -> list[Tensor]:
    return [case[f"{prefix}_{name}"].clone() for name in NAMES]


def named(tensors: list[Tensor]) -> dict[str, Tensor]:
    return {str(place): tensor for place, tensor in enumerate(tensors)}


def perceptron(parameters: list[Tensor], x: Tensor) -> Tensor:
    w1, b1, w2, b2 = parameters
    return F.linear(F.linear(x, w1, b1).relu(), w2, b2)


# -- golden numbers ----------------------------------------------------------------------------------------------------


@GOLDEN
@pytest.mark.parametrize(("method", "all_tasks", "power"), [("ewc", False, 2), ("mas", True, 1), ("fedcurv", True, 2)])
def test_golden_importance(path, method, all_tasks, power):
    case = load(path)
    tasks = case["num_batches"].tolist()
    batches = [
        (case[f"x_{task}_{k}"], case[f"y_{task}_{k}"])
        for task, count in enumerate(tasks if all_tasks else tasks[:-1])
        for k in range(count)
    ]
    parameters = [parameter.requires_grad_() for parameter in of(case, "param")]

    def loss(batch):
        return smoothed_cross_entropy(perceptron(parameters, batch[0]), batch[1], 0.1)

    for mine, theirs in zip(per_batch(parameters, batches, loss, power), of(case, f"{method}_importance"), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@GOLDEN
@pytest.mark.parametrize("method", ["ewc", "mas"])
def test_golden_penalty(path, method):
    case = load(path)
    moved = [parameter.requires_grad_() for parameter in of(case, "moved")]
    held = Quadratic(case["lam"].item(), named(of(case, "param")), named(of(case, f"{method}_importance")))
    penalty = quadratic(named(moved), held)
    assert penalty.item() == pytest.approx(case[f"{method}_penalty"].item(), rel=1e-4)
    penalty.backward()
    for mine, theirs in zip(moved, of(case, f"{method}_penalty_grad"), strict=True):
        torch.testing.assert_close(mine.grad, theirs, rtol=1e-3, atol=1e-6)


@GOLDEN
def test_golden_curvature(path):
    """As a client has it: one centre for itself and the others, and a constant that is left out."""
    case = load(path)

    def flat(prefix: str) -> Tensor:
        return torch.cat([part.flatten() for part in of(case, prefix)])

    everyone = [(flat("fedcurv_importance"), flat("param"))]
    everyone += [(flat(f"other{q}_importance"), flat(f"other{q}_param")) for q in range(case["num_others"])]
    sums = torch.stack([fedcurv.pulled(*sent) for sent in everyone]).sum(0)
    centre, moved = fedcurv.centre(sums), flat("moved").requires_grad_()
    penalty = quadratic(named([moved]), Quadratic(case["lam"].item(), named([centre]), named([sums[0]])))
    penalty.backward()
    gradient = torch.cat([part.flatten() for part in of(case, "fedcurv_penalty_grad")])
    torch.testing.assert_close(moved.grad, gradient, rtol=1e-3, atol=1e-6)
    constant = sum((omega * phi**2).sum() for omega, phi in everyone) - (sums[0] * centre**2).sum()
    assert (penalty + case["lam"] * constant).item() == pytest.approx(case["fedcurv_penalty"].item(), rel=1e-4)


@GOLDEN
def test_golden_proximal_term(path):
    case = load(path)
    config = tiny.experiment({"method.mu": 2 * case["lam"].item()}, "fedprox")
    client = tiny.federation(config, [[tiny.task(1)]]).clients[0]
    client.anchors = named(of(case, "param"))
    penalty = client.penalty(named(of(case, "moved")), client.context(), None, None)
    assert penalty.item() == pytest.approx(case["fedprox_penalty"].item(), rel=1e-4)


# -- the estimates on their own ----------------------------------------------------------------------------------------


def test_weights_of_batches_by_hand():
    """The gradient of the loss mean(w * x) is the mean of x: 2 and then -5."""
    w = torch.ones((), requires_grad=True)
    batches = [(torch.tensor([1.0, 3.0]), torch.zeros(2)), (torch.tensor([-5.0]), torch.zeros(1))]

    def estimate(formula, power):
        return formula([w], batches, lambda batch: (w * batch[0]).mean(), power)[0].item()

    assert estimate(per_sample, 2) == pytest.approx((2 * 2 * 2**2 + 5**2) / 3)
    assert estimate(per_sample, 1) == pytest.approx((2 * 2 + 5) / 3)
    assert estimate(per_batch, 2) == pytest.approx((2 * 2**2 + 5**2) / 2)
    assert estimate(per_batch, 1) == pytest.approx((2 * 2 + 5) / 2)


@pytest.mark.parametrize("size", [1, 8])
def test_micro_batches_of_independent_gradients_estimate_the_mean_of_their_squares(size):
    w, x = torch.ones((), requires_grad=True), 3 * torch.randn(8_000, generator=torch.Generator().manual_seed(0))
    batches = [(part, part) for part in x.split(size)]
    (estimate,) = per_sample([w], batches, lambda batch: (w * batch[0]).mean(), 2)
    assert estimate.item() == pytest.approx(x.square().mean().item(), rel=1e-4 if size == 1 else 0.1)


def learner(settings: dict | None = None, images: int = 4) -> Learner:
    """A client in its second task, with people 1 and 2 behind it; nobody else can see its query images."""
    tasks = [tiny.task(1, 2, seed=1, images=images), tiny.task(3, 4, 5, seed=2, images=images)]
    config = tiny.experiment({"rounds.per_task": 1, "train.batch": 5} | (settings or {}))
    result = Learner(0, config, [replace(task, query=None) for task in tasks], tiny.network())
    result.begin_round()
    result.begin_round()
    return result


def parameters(of: Learner) -> list[Tensor]:
    return list(trainable_parameters(of.tail).values())


@pytest.mark.parametrize("softmax", ["known", "all"])
@pytest.mark.parametrize(("estimate", "power"), [(fisher, 2), (sensitivity, 1)])
def test_a_sample_at_a_time_it_is_the_mean_over_samples(estimate, power, softmax):
    client = learner({"train.softmax": softmax})
    samples = client.clean_samples()
    columns = [1, 2, 3, 4, 5] if softmax == "known" else range(tiny.CLASSES)
    allowed = torch.tensor([person in columns for person in range(tiny.CLASSES)])
    totals = [torch.zeros_like(parameter) for parameter in parameters(client)]
    twin = copy.deepcopy(client.tail).eval()
    for i in range(len(samples)):
        twin.zero_grad()
        scores = twin(samples.representations[i : i + 1])[0]
        loss = scores[0, list(columns)].square().sum()
        if estimate is fisher:
            loss = smoothed_cross_entropy(scores, samples.pids[i : i + 1], 0.1, allowed=allowed)
        loss.backward()
        for total, parameter in zip(totals, trainable_parameters(twin).values(), strict=True):
            total += parameter.grad.abs() ** power / len(samples)
    for mine, brute in zip(estimate(client, parameters(client), 1), totals, strict=True):
        torch.testing.assert_close(mine, brute, rtol=1e-4, atol=1e-9)
        assert brute.any()


@pytest.mark.parametrize("size", [1, 5, 8, 100])
def test_every_sample_is_in_one_micro_batch_in_any_order(size):
    client, seen = learner(), []
    client.tail.register_forward_pre_hook(lambda tail, inputs: seen.append(inputs[0]))
    sensitivity(client, [client.tail.classifier.weight], size)
    samples = client.clean_samples()
    rows = [[int((samples.representations == x).flatten(1).all(1).nonzero()) for x in batch] for batch in seen]
    assert list(chain(*rows)) != list(range(12)) == sorted(chain(*rows))
    assert [len(part) for part in rows] == {1: [1] * 12, 5: [5, 5, 2], 8: [8, 4], 100: [12]}[size]


@pytest.mark.parametrize("estimate", [fisher, sensitivity])
def test_an_estimate_leaves_no_trace(estimate):
    client = learner()
    state, noise = copy.deepcopy(client.tail.state_dict()), torch.get_rng_state()
    first = estimate(client, parameters(client), 8)
    assert all(torch.equal(value, state[name]) for name, value in client.tail.state_dict().items())
    assert all(parameter.grad is None for parameter in client.tail.parameters())
    assert torch.equal(torch.get_rng_state(), noise)
    assert all(torch.equal(a, b) for a, b in zip(first, estimate(client, parameters(client), 8), strict=True))


@pytest.mark.parametrize("estimate", [fisher, sensitivity])
def test_rows_of_people_a_client_does_not_know_are_not_important(estimate):
    client = learner()
    (rows,) = estimate(client, [client.tail.classifier.weight], 8)
    assert rows.any(1).tolist() == [person in client.known for person in range(tiny.CLASSES)]


# -- the reference code's estimate -------------------------------------------------------------------------------------


def test_reference_estimate_of_one_batch():
    """A task in one batch, in training mode, without dropout: |batch| * (gradient of the mean loss)^2."""
    client = learner({"train.batch": 64, "train.augment": "none"})
    client.tail.trunk.drop.p = 0.0
    samples, twin = client.clean_samples(), copy.deepcopy(client.tail).train()
    scores = twin(samples.representations)[0]
    smoothed_cross_entropy(scores, samples.pids, 0.1, allowed=client.allowed()).backward()
    mine = reference_code(client, parameters(client), [1], "train", 2)
    for importance, parameter in zip(mine, trainable_parameters(twin).values(), strict=True):
        torch.testing.assert_close(importance, 12 * parameter.grad**2, rtol=1e-3, atol=1e-8)
    torch.testing.assert_close(client.tail.neck.running_mean, twin.neck.running_mean)
    assert client.tail.neck.running_mean.any()


def test_reference_estimate_goes_through_the_tasks_and_the_split_it_is_given():
    client = learner()
    client.tasks = [replace(task, query=tiny.task(3, 4, 5, 9, seed=7).query) for task in client.tasks]
    before = client.forward_counts.copy()
    reference_code(client, parameters(client), [0, 1], "train", 1)
    assert client.forward_counts - before == {"stem": 8 + 12, "train": 8 + 12}
    before = client.forward_counts.copy()
    reference_code(client, parameters(client), [1], "query", 1)
    assert client.forward_counts - before == {"stem": 3, "train": 3}  # person 9 is nobody it was trained on


def test_reference_estimate_shuffles_again_each_round_and_repeats():
    def estimate(draws: int) -> Tensor:
        client = learner()
        client.draws = draws
        return reference_code(client, [client.tail.classifier.weight], [0, 1], "train", 2)[0]

    torch.manual_seed(0)
    one = estimate(2)
    torch.manual_seed(0)  # for dropout, whose generator is training's
    assert torch.equal(estimate(2), one)
    torch.manual_seed(0)
    assert not torch.allclose(estimate(3), one)


def test_without_tasks_nothing_is_important():
    client = learner()
    state = copy.deepcopy(client.tail.state_dict())
    assert not reference_code(client, [client.tail.classifier.weight], [], "train", 2)[0].any()
    assert all(torch.equal(value, state[name]) for name, value in client.tail.state_dict().items())


def test_the_training_loss_is_what_is_trained():
    client = learner({"train.label_smoothing": 0.3, "train.softmax": "all"})
    samples = client.clean_samples()
    client.tail.eval()
    scores = client.tail(samples.representations)[0]
    expected = F.cross_entropy(scores, samples.pids, label_smoothing=0.3)
    torch.testing.assert_close(training_loss(client)((samples.representations, samples.pids)), expected)


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [ewc.Options, mas.Options, fedcurv.Options])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("penalty", -1.0),
        ("penalty", float("nan")),
        ("penalty", float("inf")),
        ("importance", "batch"),
        ("micro_batch", 0),
    ],
)
def test_impossible_options_are_refused(options, key, value):
    with pytest.raises(InputError, match=f"^method.{key} = .*expected "):
        check_values(options(**{key: value}), "method.")


@pytest.mark.parametrize("options", [mas.Options, fedcurv.Options])
def test_query_images_are_only_for_the_reference_estimate(options):
    assert options(importance="round", data="query").data == "query"
    for beside in ({"data": "query"}, {"data": "gallery", "importance": "round"}):
        with pytest.raises(InputError, match=r"^method\.data = .*expected (one of )?train"):
            check_values(options(**beside), "method.")


@pytest.mark.parametrize("method", ["ewc", "mas", "fedcurv"])
def test_the_reference_codes_estimate_does_not_depend_on_who_else_is_on_the_rank(method):
    """It is made in training mode, with a layer that drops at random."""
    settings = {
        "train.steps": 2,
        "train.batch": 8,
        "rounds.per_task": 1,
        "memory.size": 0,
        "method.importance": "round",
    }
    alone, beside = (tiny.federation(tiny.experiment(settings, method), STREAMS[:clients]) for clients in (1, 3))
    for number in (1, 2):
        for f in (alone, beside):
            f.learn(number, range(len(f.clients)))
    assert alone.clients[0].learner.fingerprint() == beside.clients[0].learner.fingerprint()
    for one, other in zip(*(list(flatten(f.clients[0].state())[0].values()) for f in (alone, beside)), strict=True):
        assert torch.equal(one, other)
