import hashlib
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fedstil_mpi.methods.importance import fisher, sensitivity
from support import tiny

STREAMS = [
    [tiny.task(1, 2, seed=1), tiny.task(3, 4, seed=2), tiny.task(5, 6, seed=3)],
    [tiny.task(2, 5, seed=4), tiny.task(1, 6, seed=5), tiny.task(7, 8, seed=6)],
]
ONLINE = [0, 1]
BATCH, SCORES = tiny.batch(1, 2), torch.zeros(2, tiny.CLASSES)
ESTIMATES = {"ewc": fisher, "mas": sensitivity}
METHODS = pytest.mark.parametrize("method", ESTIMATES)


def federation(method: str, settings: dict | None = None, preset: str = "best", query: bool = False) -> tiny.Federation:
    """Two rounds a task. Without `query` there are no query images that could be read."""
    common = {"rounds.per_task": 2, "train.batch": 8}
    common |= {"train.epochs": 2} if preset == "reference_code" else {"train.steps": 3, "memory.size": 6}
    streams = [[task if query else replace(task, query=None) for task in tasks] for tasks in STREAMS]
    return tiny.federation(tiny.experiment(common | (settings or {}), method, preset), streams)


def after(rounds: int, *arguments, **keywords) -> tiny.Federation:
    result = federation(*arguments, **keywords)
    for number in range(1, rounds + 1):
        result.play(number, ONLINE)
    return result


def fingerprints(result: tiny.Federation) -> list[str]:
    return [side.learner.fingerprint() for side in result.clients]


def weights(result: tiny.Federation, client: int = 0) -> list[Tensor]:
    tail = result.clients[client].learner.tail
    return [parameter.detach().clone() for parameter in tail.parameters() if parameter.requires_grad]


def anchors(side) -> list[Tensor]:
    return list(side.held.centres.values())


def importances(side) -> list[Tensor]:
    return list(side.held.importances.values())


def digest(tensors: list[Tensor]) -> str:
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()


# -- the penalty -------------------------------------------------------------------------------------------------------


@METHODS
@pytest.mark.parametrize("preset", ["best", "paper"])
def test_without_a_penalty_it_is_learning_alone(method, preset):
    alone = fingerprints(after(5, "single", preset=preset))
    assert fingerprints(after(5, method, {"method.penalty": 0.0}, preset)) == alone
    assert fingerprints(after(5, method, {"method.penalty": 1.0}, preset)) != alone


@METHODS
def test_the_first_task_is_learned_freely(method):
    settings = {"method.penalty": 1e6}
    first = after(1, method, settings)
    assert all(tiny.penalty(side, BATCH, SCORES) is None for side in first.clients)
    assert all(not importances(side) for side in first.clients)
    assert fingerprints(after(2, method, settings)) == fingerprints(after(2, "single"))


@METHODS
def test_the_penalty_is_smallest_at_the_anchor(method):
    side = after(2, method, {"method.penalty": 7.0}).clients[0]
    trained = [parameter for parameter in side.learner.tail.parameters() if parameter.requires_grad]
    assert len(anchors(side)) == len(trained)
    penalty = tiny.penalty(side, BATCH, SCORES)
    assert penalty.item() == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(penalty, trained))
    for parameter in trained:
        parameter.data += 0.5
    expected = 7 * 0.25 * sum(importance.sum() for importance in importances(side))
    assert tiny.penalty(side, BATCH, SCORES).item() == pytest.approx(expected.item(), rel=1e-4)
    assert expected > 0


@METHODS
@pytest.mark.parametrize("micro_batch", [1, 8])
@pytest.mark.parametrize("held_at", ["tasks", "newest"])
def test_importances_of_tasks_add_up(method, micro_batch, held_at):
    result = after(2, method, {"method.micro_batch": micro_batch, "method.anchors": held_at})
    side = result.clients[1]
    first, start = [one.clone() for one in importances(side)], weights(result, 1)
    result.play(3, ONLINE)
    assert digest(importances(side)) == digest(first)  # in the middle of a task nothing changes
    if held_at == "newest":
        assert digest(anchors(side)) == digest(start) != digest(weights(result, 1))
    result.play(4, ONLINE)
    if held_at == "newest":
        assert digest(anchors(side)) == digest(weights(result, 1))
    second = ESTIMATES[method](side.learner, list(side.parameters.values()), micro_batch)
    for total, one, two in zip(importances(side), first, second, strict=True):
        torch.testing.assert_close(total, one + two)
        assert one.any()
        assert two.any()


@METHODS
def test_each_task_holds_the_weights_it_left(method):
    """The gradient of the penalty is that of the sum over tasks, each with its own importance and its own weights."""
    result = after(2, method, {"method.penalty": 3.0, "method.anchors": "tasks"})
    side = result.clients[0]
    terms = [([one.clone() for one in importances(side)], weights(result))]
    for number in (3, 4):
        result.play(number, ONLINE)
    new = [total - one for total, one in zip(importances(side), terms[0][0], strict=True)]
    terms.append((new, weights(result)))
    trained = [parameter for parameter in side.learner.tail.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.data += 0.1
    found = torch.autograd.grad(tiny.penalty(side, BATCH, SCORES), trained)
    for place, gradient in enumerate(found):
        expected = sum(2 * 3.0 * omega[place] * (trained[place] - then[place]) for omega, then in terms)
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5)


def test_the_default_is_what_the_papers_do():
    defaults = {method: tiny.experiment({}, method).method.options.anchors for method in ESTIMATES}
    assert defaults == {"ewc": "tasks", "mas": "newest"}


@METHODS
def test_what_matters_to_the_first_task_moves_less(method):
    def drift(penalty: float) -> float:
        result = after(2, method, {"method.penalty": penalty, "memory.size": 0})
        side = result.clients[0]
        held = list(zip(anchors(side), importances(side), strict=True))
        result.play(3, ONLINE)
        moved = zip(weights(result), held, strict=True)
        return sum((importance * (now - anchor) ** 2).sum().item() for now, (anchor, importance) in moved)

    free = drift(0.0)
    assert drift(1e5) < 0.5 * free


# -- as the reference code ---------------------------------------------------------------------------------------------


def test_reference_ewc_forgets_the_newest_task_and_holds_where_the_round_ended():
    result = after(2, "ewc", preset="reference_code")
    side = result.clients[0]
    assert not importances(side)  # the first task is the newest
    assert tiny.penalty(side, BATCH, SCORES) is None
    for number in (3, 4):
        result.play(number, ONLINE)
        assert all(importance.any() for importance in importances(side)[:1])
        assert digest(anchors(side)) == digest(weights(result))
        assert tiny.penalty(side, BATCH, SCORES).item() == 0
        parameter = next(iter(side.parameters.values()))
        parameter.data += 1
        assert tiny.penalty(side, BATCH, SCORES).item() == pytest.approx(
            50 * importances(side)[0].sum().item(), rel=1e-4
        )
        parameter.data -= 1


def test_reference_mas_reads_the_query_images_from_the_first_round_on():
    result = after(1, "mas", preset="reference_code", query=True)
    side = result.clients[0]
    assert all(importance.any() for importance in importances(side)[:1])
    assert digest(anchors(side)) == digest(weights(result))
    with pytest.raises(AttributeError):
        after(1, "mas", preset="reference_code")


@METHODS
def test_reference_estimates_are_made_afresh(method):
    """From scratch: in a model that has nothing left to learn they do not grow."""
    result = after(3, method, preset="reference_code", query=True)
    side = result.clients[0]
    sizes = []
    for _ in range(3):
        side.end()
        sizes.append(sum(importance.sum().item() for importance in importances(side)))
    assert max(sizes) < 1.5 * min(sizes)


@METHODS
def test_only_the_reference_estimate_moves_statistics_of_batch_norms(method):
    def moved(settings: dict) -> bool:
        result = after(3, method, settings, query=True)
        side = result.clients[0]
        side.learner.begin_round()  # the last round of the second task
        before = side.learner.tail.neck.running_mean.clone()
        side.end()
        return not torch.equal(side.learner.tail.neck.running_mean, before)

    assert not moved({})
    assert moved({"method.importance": "round"})
