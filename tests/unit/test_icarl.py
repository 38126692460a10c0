import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from fedstil_mpi.client.batches import Batch
from fedstil_mpi.client.rehearsal import Memory, Samples
from fedstil_mpi.config.fields import check_values
from fedstil_mpi.methods import icarl
from fedstil_mpi.methods.aids import innermost
from fedstil_mpi.methods.base import Client
from fedstil_mpi.util.errors import InputError
from support import tiny
from support.golden_files import golden

STREAMS = [
    [tiny.task(1, 2, seed=1), tiny.task(3, 4, seed=2), tiny.task(5, 1, seed=3)],
    [tiny.task(2, 5, seed=4), tiny.task(1, 7, seed=5), tiny.task(8, 9, seed=6)],
]
OLD = {1: [1, 2], 2: [1, 2, 3, 4]}
"""Task -> people that client 0 has met before."""


def federation(settings: dict | None = None, method: str = "icarl", preset: str = "best") -> tiny.Federation:
    common = {"train.steps": 3, "train.batch": 8, "rounds.per_task": 2, "memory.size": 12}
    return tiny.federation(tiny.experiment(common | (settings or {}), method, preset), STREAMS)


def begun(settings: dict | None = None, rounds: int = 3) -> Client:
    """Client 0 at the start of its training in the last of these rounds."""
    result = federation(settings)
    for number in range(1, rounds):
        result.play(number, [0, 1])
    result.distribute(rounds, [0])
    side = result.clients[0]
    side.learner.begin_round()
    side.begin()
    return side


def batches(side: Client, number: int) -> list[Batch]:
    return [make() for make in side.learner._epoch(number, 0)]


def permuted(batch: Batch, order: Tensor) -> Batch:
    return Batch(batch.samples[order], batch.rehearsed[order])


# -- the loss ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", golden("k_distill"), ids=lambda path: path.stem)
def test_golden_loss_of_rehearsed_samples(path):
    case = {key: torch.from_numpy(np.asarray(value)) for key, value in np.load(path, allow_pickle=False).items()}
    loss = icarl.class_loss(case["student"], case["icarl_target"])
    torch.testing.assert_close(loss.double(), case["icarl_class_loss"], rtol=1e-4, atol=1e-5)
    # The whole penalty, of a client that holds these logits.
    side = begun({"train.softmax": "all"})
    old = int(case["icarl_old_classes"])
    side.old, side.old_logits = torch.arange(old), case["teacher"][:, :old]
    people = case["icarl_target"]
    batch = Batch(Samples(torch.empty(len(people), 1), people, people), torch.arange(len(people)))
    expected = case["icarl_class_loss"] + case["icarl_distill_loss"]
    torch.testing.assert_close(tiny.penalty(side, batch, case["student"]).double(), expected, rtol=1e-4, atol=1e-5)


def test_undecided_scores_cost_ln_2_per_class():
    """ln 2 per question, whatever the label; and ln 2 against old logits of 0, that is, a probability of one half."""
    for softmax in ("known", "all"):
        side = begun({"method.distillation": 0.7, "train.softmax": softmax})
        side.old_logits = torch.zeros_like(side.old_logits)
        penalty = tiny.penalty(side, batches(side, 3)[0], torch.zeros(8, tiny.CLASSES))
        assert penalty.item() == pytest.approx(0.7 * 2 * math.log(2), rel=1e-5)


def test_the_class_loss_runs_over_allowed_classes():
    scores = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    allowed = torch.tensor([True, False, True, True, False, False])
    pids = torch.tensor([0, 2, 3, 0])
    loss = icarl.class_loss(scores, pids, allowed)
    (gradient,) = torch.autograd.grad(loss, scores)
    torch.testing.assert_close(loss, icarl.class_loss(scores[:, [0, 2, 3]], torch.tensor([0, 1, 2, 0])))
    assert not gradient[:, ~allowed].any()
    assert (gradient[:, allowed] != 0).all()


@pytest.mark.parametrize("targets", ["sigmoid", "softmax"])
def test_only_old_classes_of_rehearsed_samples_are_distilled(targets):
    side = begun({"method.targets": targets, "train.softmax": "known"}, rounds=5)
    batch = batches(side, 5)[0]
    scores = torch.randn(8, tiny.CLASSES, generator=torch.Generator().manual_seed(0)).requires_grad_()
    tiny.penalty(side, batch, scores).backward()
    touched = scores.grad != 0
    rehearsed = batch.rehearsed >= 0
    assert 0 < rehearsed.sum() < 8
    assert not touched[~rehearsed].any()
    classes = [1, 2, 3, 4] if targets == "softmax" else [1, 2, 3, 4, 5]  # the class loss is over all known ones
    assert torch.nonzero(touched[rehearsed].all(0))[:, 0].tolist() == classes
    assert touched.any(0).sum() == len(classes)


# -- which sample meets which old logits -------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"memory.share": None}, {"prototypes.exchange": True}])
@pytest.mark.parametrize("rounds", [3, 4, 5, 6])
def test_every_rehearsed_sample_meets_its_own_logits(settings, rounds):
    """What is stored for a batch's rows is what the model of the round's beginning gives for these very samples."""
    side = begun(settings, rounds)
    side = innermost(side)
    old = OLD[side.learner.task]
    before = copy.deepcopy(side.learner.tail).eval()
    met = []
    side.learner.tail.train()

    def check(parameters, context, batch: Batch, scores: Tensor) -> Tensor | None:
        kept = batch.rehearsed >= 0
        own = before(batch.samples.representations[kept])[0][:, old]
        torch.testing.assert_close(side.old_logits[batch.rehearsed[kept]], own, rtol=1e-4, atol=1e-6)
        met.extend(batch.rehearsed[kept].tolist())
        return side.penalty(parameters, context, batch, scores)

    side.learner.train(rounds, check, side.context())
    assert len(set(met)) > 3
    assert len({tuple(row.tolist()) for row in side.old_logits}) > 3  # logits differ, so a wrong row would have shown
    if "prototypes.exchange" in settings and rounds > 4:
        assert side.learner.relayed


def test_the_order_of_a_batch_does_not_matter_but_the_pairing_does():
    side = begun()
    batch, order = batches(side, 3)[0], torch.tensor([5, 2, 7, 0, 1, 6, 4, 3])
    scores = torch.randn(8, tiny.CLASSES, generator=torch.Generator().manual_seed(0))
    value = tiny.penalty(side, batch, scores)
    torch.testing.assert_close(tiny.penalty(side, permuted(batch, order), scores[order]), value)
    kept = batch.rehearsed >= 0
    assert len(set(batch.rehearsed[kept].tolist())) > 1
    swapped = batch.rehearsed.clone()
    swapped[kept] = batch.rehearsed[kept].roll(1)
    assert (tiny.penalty(side, replace(batch, rehearsed=swapped), scores) - value).abs() > 1e-6


@pytest.mark.parametrize("targets", ["sigmoid", "softmax"])
def test_a_model_with_its_old_logits_is_not_pulled(targets):
    """With its own old scores, and only with them, the gradient of distillation vanishes."""
    side = begun({"method.targets": targets})
    batch = batches(side, 3)[0]
    kept = batch.rehearsed >= 0

    def pull(old_logits: Tensor) -> float:
        scores = side.learner.tail.eval()(batch.samples.representations)[0].detach().requires_grad_()
        side.old_logits = old_logits
        loss = tiny.penalty(side, batch, scores)
        if targets == "sigmoid":
            loss = loss - icarl.class_loss(scores[kept], batch.samples.pids[kept], side.learner.allowed())
        return torch.autograd.grad(loss, scores)[0].abs().max().item()

    old_logits = side.old_logits
    assert pull(old_logits) < 1e-7
    assert pull(old_logits.roll(1, 0)) > 1e-6


def test_old_logits_are_those_of_evaluation_mode_and_cost_no_gradient():
    side = begun()
    statistics = side.learner.tail.neck.running_mean.clone()
    passed = side.learner.forward_counts["search"]
    side.learner.tail.train()
    side.begin()
    old_logits = side.old_logits
    side.learner.tail.train()
    side.begin()
    assert torch.equal(side.old_logits, old_logits)  # no dropout
    assert not old_logits.requires_grad
    assert torch.equal(side.learner.tail.neck.running_mean, statistics)
    assert old_logits.shape == (len(side.learner.rehearsed()), 2)
    assert side.learner.forward_counts["search"] == passed + 2 * len(old_logits)


# -- when there is nothing to keep -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [1, 2])
def test_nothing_is_kept_in_the_first_task(rounds):
    side = begun({"memory.share": None}, rounds)
    seen = batches(side, rounds)
    assert any((batch.rehearsed >= 0).any() for batch in seen) == (rounds == 2)
    assert all(tiny.penalty(side, batch, torch.zeros(len(batch.samples), tiny.CLASSES)) is None for batch in seen)


def test_new_images_alone_cost_nothing():
    side = begun()
    batch = tiny.batch(3, 4)
    assert tiny.penalty(side, batch, torch.zeros(2, tiny.CLASSES)) is None


@pytest.mark.parametrize("size", [0, 12])
def test_without_distillation_it_is_single_bit_for_bit(size):
    pair = federation({"method.distillation": 0.0, "memory.size": size}), federation({"memory.size": size}, "single")
    for number in range(1, 6):
        for result in pair:
            result.play(number, [0, 1])
    for mine, other in zip(pair[0].clients, pair[1].clients, strict=True):
        assert mine.learner.fingerprint() == other.learner.fingerprint()
        assert mine.learner.forward_counts == other.learner.forward_counts


def test_distillation_keeps_old_logits():
    def moved(weight: float) -> float:
        side = begun({"method.distillation": weight, "train.steps": 30, "train.lr": 1e-2})
        old = side.learner.memory.recall().representations
        before = side.learner.tail.eval()(old)[0][:, [1, 2]].sigmoid().detach()
        side.learner.train(3, side.penalty, side.context())
        return (side.learner.tail.eval()(old)[0][:, [1, 2]].sigmoid() - before).abs().mean().item()

    assert moved(30.0) < 0.7 * moved(0.0)


# -- quota -------------------------------------------------------------------------------------------------------------


def people(*pids: int, images: int = 9) -> Samples:
    labels = torch.tensor(pids).repeat_interleave(images)
    return Samples(torch.arange(len(labels), dtype=torch.float32)[:, None], labels, labels)


@pytest.mark.parametrize(
    ("quota", "repeat", "expected"),
    [
        ("seen", False, [[8, 9], [5, 6, 6]]),
        ("seen", True, [[9, 9], [6, 6, 6]]),
        ("width", False, [[4, 4], [1, 2, 2]]),  # ids up to 3, then up to 9: 2/4 and 3/10 of 17 places
        ("width", True, [[5, 5], [2, 2, 2]]),  # rounded up, as in the reference code
    ],
)
def test_quota_by_hand(quota, repeat, expected):
    memory = Memory(17, repeat=repeat, quota=quota)
    for pids, shares in zip([(1, 3), (9,)], expected, strict=True):
        samples = people(*pids)
        memory.store(samples, torch.randn(len(samples), 3, generator=torch.Generator().manual_seed(0)))
        assert sorted(torch.bincount(memory.recall().pids).tolist())[-len(shares) :] == shares
        assert len(memory.recall()) == sum(shares)


def test_the_width_is_that_of_the_largest_id_ever_seen():
    memory = Memory(20, quota="width")
    for pids in ((9,), (2, 4)):
        samples = people(*pids)
        memory.store(samples, torch.randn(len(samples), 3, generator=torch.Generator().manual_seed(0)))
        assert set(torch.bincount(memory.recall().pids).tolist()) == {0, 2}


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": "sigmoids"}, "expected one of sigmoid, softmax"),
        ({"distillation": -1.0}, "method.distillation = -1.0; expected between 0 and 1e"),
        ({"distillation": math.nan}, "expected between 0 and 1e"),
        ({"temperature": 0.0}, "method.temperature = 0.0; expected between 0.001 and 1e"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        check_values(icarl.Options(**options), "method.")
