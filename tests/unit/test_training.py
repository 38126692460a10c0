from collections import Counter
from functools import partial
from itertools import count, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedstil_mpi.client.adam import Adam
from fedstil_mpi.client.batches import Batch, batch_indices
from fedstil_mpi.client.epochs import ReferenceRate
from fedstil_mpi.client.learner import Learner
from fedstil_mpi.client.local_training import TRIPLET_MARGIN, Diverged, LocalTraining, Stopped
from fedstil_mpi.client.rehearsal import Samples
from fedstil_mpi.config.schema import Train, Warmup
from fedstil_mpi.federation.start_model import check_finite
from fedstil_mpi.federation.warm_up import warm_up
from fedstil_mpi.methods.aids.prototypes import rehearse
from fedstil_mpi.models.losses import supervised_contrast
from fedstil_mpi.models.network import Tail, build, network_state
from fedstil_mpi.models.triplet import triplet_loss
from fedstil_mpi.util.errors import InputError
from support import tiny

STREAM = [tiny.task(1, 4, seed=1), tiny.task(2, 7, 9, seed=2), tiny.task(4, 10, seed=3)]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batches(new: int, old: int, batch: int, share: float | None, seed: int = 0) -> list[list[int]]:
    return [index.tolist() for index in batch_indices(new, old, batch, share, rng(seed))]


def nothing(parameters, context, batch: Batch, scores: Tensor) -> None:
    return None


def learner(client: int = 0, network=None, tasks=STREAM, **settings: Any) -> Learner:
    return Learner(
        client,
        tiny.experiment({key.replace("__", "."): v for key, v in settings.items()}),
        tasks,
        network or tiny.network(),
    )


def play(side: Learner, rounds: int) -> Learner:
    for number in range(1, rounds + 1):
        side.begin_round()
        side.train(number, nothing, None)
    return side


# -- batches -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize(("new", "old", "batch"), [(40, 13, 8), (5, 3, 16), (17, 100, 4), (1, 1, 2)])
def test_new_samples_once_old_ones_in_turn(new, old, batch, share):
    drawn = batches(new, old, batch, share)
    seen = Counter(i for part in drawn for i in part)
    assert sorted(i for i in seen.elements() if i < new) == list(range(new))
    assert set(seen) <= set(range(new + old))
    rehearsed = [seen[i] for i in range(new, new + old)]
    assert max(rehearsed) - min(rehearsed) <= 1
    quota = min(max(1, round(share * batch)), batch - 1)
    assert all(sum(i >= new for i in part) == quota for part in drawn)
    assert all(len(part) == batch for part in drawn[:-1])
    assert 2 <= len(drawn[-1]) <= batch


@pytest.mark.parametrize(("old", "share"), [(0, 0.5), (0, None), (14, None)])
def test_without_a_share_all_samples_once(old, share):
    drawn = batches(25, old, 8, share)
    together = [i for part in drawn for i in part]
    assert len(set(together)) == len(together)
    lost = 1 if (25 + old) % 8 == 1 else 0  # a last batch of a single sample is dropped
    assert len(together) == 25 + old - lost
    assert [len(part) for part in drawn[:3]] == [8, 8, 8]


def test_a_last_batch_of_one_sample_is_dropped():
    assert [len(part) for part in batches(9, 0, 4, None)] == [4, 4]
    assert [len(part) for part in batches(10, 0, 4, None)] == [4, 4, 2]
    assert (
        len({tuple(sorted(set(range(9)) - {i for part in batches(9, 0, 4, None, s) for i in part})) for s in range(20)})
        > 3
    )
    assert [len(part) for part in batches(9, 2, 5, 0.2)] == [5, 5, 2]  # the last new sample is not alone


def test_batches_follow_the_generator():
    assert batches(30, 9, 8, 0.5, 1) == batches(30, 9, 8, 0.5, 1) != batches(30, 9, 8, 0.5, 2)


# -- training that diverges --------------------------------------------------------------------------------------------


def nan_at(step: int, value: float = np.nan):
    """A penalty that is no number at this step, counted from 1."""
    steps = count(1)
    return lambda parameters, context, batch, scores: torch.tensor(value if next(steps) == step else 0.0)


@pytest.mark.parametrize(
    ("settings", "where"), [({"steps": 7}, "step 5"), ({"steps": 0, "epochs": 3}, "epoch 2, step 2")]
)
def test_training_stops_at_the_first_loss_that_is_not_finite(settings, where):
    seen: list[int] = []
    training = LocalTraining(tiny.network().tail, Train(**settings), ReferenceRate(1e-3))
    with pytest.raises(Diverged, match=f"^{where}: the loss is inf$"):
        training.run(passes(seen), None, nan_at(5, np.inf), ())
    assert seen == ([0, 1] if "epochs" in settings else [0, 1, 2])  # to the end of the pass, no further


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"train__lr": 1e30, "train__steps": 4}, "step [23]: the loss is nan"),
        ({"train__steps": 1}, "the weights are not finite"),
    ],
)
def test_a_run_that_diverges_says_where(settings, where):
    side = learner(client=2, **settings)
    side.begin_round()
    if "weights" in where:
        side.tail.classifier.weight.register_hook(lambda gradient: gradient * np.nan)
    with pytest.raises(InputError, match=rf"^client 2, round 1.*{where}.*on_divergence=continue"):
        side.train(1, nothing, None)


def test_a_client_that_has_diverged_plays_on_where_that_is_asked_and_finds_nobody():
    side = learner(train__lr=1e30, train__steps=4, train__on_divergence="continue")
    side.begin_round()
    assert np.isnan(side.train(1, nothing, None).loss)
    assert tiny.search(side)[0].tolist() == [0, 0, 0, 0, 0, 1]
    strict = learner(train__steps=1)
    strict.begin_round()
    with torch.no_grad():
        strict.tail.trunk.conv.weight.fill_(np.nan)
    with pytest.raises(InputError, match="client 0, task 0: the features of its query images are not finite"):
        tiny.search(strict)


@pytest.mark.parametrize(("warmed_up", "remedy"), [(True, "lower warmup.lr"), (False, "choose other weights")])
def test_no_run_starts_from_a_model_that_has_diverged(warmed_up, remedy):
    network = tiny.network()
    check_finite(network, warmed_up=warmed_up)
    network.stem.norm.running_var.fill_(np.inf)
    with pytest.raises(InputError, match=f"start model has values that are not finite; .*{remedy}"):
        check_finite(network, warmed_up=warmed_up)


@pytest.fixture
def torch_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_the_warmed_up_model_does_not_depend_on_the_threads_of_its_rank(torch_threads):
    images = tiny.task(*range(4)).train
    states = []
    for threads in (1, 2):
        torch_threads(threads)
        network = build("resnet18", num_classes=4, image_size=images.pixels.shape[1:3])
        warm_up(network, images, Warmup(steps=2, batch=8), seed=0)
        assert torch.get_num_threads() == threads
        states.append(network_state(network))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


# -- one round of training ---------------------------------------------------------------------------------------------


def samples(n: int = 24, classes: int = 3, seed: int = 0) -> Samples:
    """People who differ in brightness, so that a round of training separates them."""
    pids = torch.arange(n) % classes
    noise = torch.rand(n, *tiny.SHAPE, generator=rng(seed))
    return Samples(noise + pids.view(-1, 1, 1, 1).float(), pids, pids)


def passes(seen: list[int]):
    """Every pass is three batches of eight; notes which passes were asked for."""

    def epoch_of(epoch: int):
        seen.append(epoch)
        parts = [samples()[list(range(start, start + 8))] for start in (0, 8, 16)]
        return iter([partial(Batch, part, torch.full((8,), -1)) for part in parts])

    return epoch_of


def train_round(tail: Tail, epoch_of, settings: Train, rate: ReferenceRate, allowed: Tensor | None, penalty):
    return LocalTraining(tail, settings, rate).run(epoch_of, allowed, penalty, ())


def test_steps_are_counted_over_passes():
    seen: list[int] = []
    tail = tiny.network().tail
    report = train_round(tail, passes(seen), Train(steps=7), ReferenceRate(1e-3), None, nothing)
    assert seen == [0, 1, 2]
    assert report.images == 7 * 8
    assert tail.neck.num_batches_tracked == 7


def test_epochs_are_counted_and_the_last_is_reported():
    seen: list[int] = []
    tail = tiny.network().tail
    settings = Train(steps=0, epochs=40, lr=1e-2)
    report = train_round(tail, passes(seen), settings, ReferenceRate(1e-2), None, nothing)
    assert seen == list(range(40))
    assert report.images == 24
    assert report.accuracy > 0.9
    first = train_round(tiny.network().tail, passes([]), Train(steps=3, lr=1e-9), ReferenceRate(1.0), None, nothing)
    assert report.loss < first.loss - 0.3


def test_the_report_is_of_the_loss_without_the_penalty():
    def report(penalty: float) -> tuple[float, float]:
        tail = tiny.network().tail
        torch.manual_seed(0)
        extra = penalty * tail.classifier.weight.detach().norm() + penalty
        epoch = train_round(tail, passes([]), Train(steps=1), ReferenceRate(1.0), None, lambda *given: extra)
        return epoch.loss, epoch.accuracy

    assert report(5.0) == report(0.0)


def test_the_penalty_is_trained():
    tail = tiny.network().tail
    weight = tail.classifier.weight
    before = weight.detach().clone()

    def towards_one(parameters, context, batch: Batch, scores: Tensor) -> Tensor:
        return 1e4 * (parameters["classifier.weight"] - 1).abs().sum()

    train_round(tail, passes([]), Train(steps=1, lr=1e-2), ReferenceRate(1.0), None, towards_one)
    torch.testing.assert_close(weight.detach() - before, torch.full_like(before, 1e-2), rtol=1e-3, atol=0)


def by_triplets(features: Tensor, pids: Tensor) -> Tensor:
    return triplet_loss(features, pids, TRIPLET_MARGIN)


def by_contrast(features: Tensor, pids: Tensor) -> Tensor:
    return supervised_contrast(features, pids, 0.1)


@pytest.mark.parametrize(("name", "loss_of"), [("triplet", by_triplets), ("contrast", by_contrast)])
def test_a_metric_loss_is_trained_but_not_reported(name, loss_of, monkeypatch):
    batch = samples()
    seen: list[list[Tensor]] = []

    def note(optimizer: Adam) -> None:
        seen.append([p.grad.clone() for p in optimizer.parameters])

    monkeypatch.setattr(Adam, "step", note)

    def gradients(weight: float) -> tuple[float, list[Tensor], Tail]:
        tail = tiny.network().tail
        tail.trunk.drop.p = 0.0
        settings = Train(steps=1, lr=1e-12, **{name: weight})
        whole = Batch(batch, torch.full((len(batch),), -1))
        report = train_round(tail, lambda epoch: iter([lambda: whole]), settings, ReferenceRate(1.0), None, nothing)
        return report.loss, seen[-1], tail

    (plain, without, tail), (with_it, both, _) = gradients(0.0), gradients(3.0)
    assert with_it == plain
    features = tail.train().features(batch.representations)
    loss = loss_of(features, batch.pids)
    own = torch.autograd.grad(loss, list(tail.trunk.parameters()))  # the first of the parameters
    assert loss > 0.01
    for less, more, difference in zip(without, both, own, strict=False):
        torch.testing.assert_close(more - less, 3 * difference, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("policy", "rates"), [("constant", [1.0] * 6), ("reference_code", [1, 1, 1, 1, 1, 0.1])])
def test_learning_rate(policy, rates, monkeypatch):
    used: list[float] = []
    step = Adam.step
    monkeypatch.setattr(Adam, "step", lambda self: used.append(self.lr) or step(self))
    settings = Train(steps=0, epochs=6, lr=1.0, rate=policy)
    train_round(tiny.network().tail, passes([]), settings, ReferenceRate(1.0), None, nothing)
    assert used == [rate for rate in rates for _ in range(3)]


def test_early_stop_ends_a_round_that_gets_worse():
    def turning(epoch: int):
        """From the fourth pass on every label is wrong."""
        batch = samples()
        batch.pids = (batch.pids + (epoch >= 3)) % 3
        yield lambda: Batch(batch, torch.full((len(batch),), -1))

    settings = Train(steps=0, epochs=40, lr=1e-2, early_stop=True)
    tail = tiny.network().tail
    train_round(tail, turning, settings, ReferenceRate(1.0), None, nothing)
    assert tail.neck.num_batches_tracked < 10


STOPPABLE = {
    "steps": Train(steps=7, lr=1e-2),
    "epochs": Train(steps=0, epochs=7, lr=1e-2, rate="reference_code"),
    "early stop": Train(steps=0, epochs=40, lr=0.3, early_stop=True),
}


@pytest.mark.parametrize("settings", STOPPABLE.values(), ids=STOPPABLE)
@pytest.mark.parametrize("after", [1, 3, 4, 7, 20])
def test_a_course_that_was_stopped_goes_on_as_if_it_had_not_been(settings, after):
    def course_of(tail: Tail) -> LocalTraining:
        return LocalTraining(tail, settings, ReferenceRate(settings.lr))

    torch.manual_seed(0)
    whole = tiny.network().tail
    report = course_of(whole).run(passes([]), None, nothing, ())

    torch.manual_seed(0)
    asked = count(1)
    stopped = course_of(tiny.network().tail)
    try:
        stopped.run(passes([]), None, nothing, (), stop=lambda: next(asked) == after)
        assert after > 7  # the stop would have come after the end
    except Stopped:
        assert len(stopped.meter.losses) + 3 * len(stopped.epochs) == after
    state = stopped.state()
    torch.manual_seed(1)
    taken_up = course_of(tiny.network(seed=1).tail)
    taken_up.restore(state)
    assert taken_up.run(passes([]), None, nothing, ()) == report
    for name, tensor in whole.state_dict().items():
        assert torch.equal(taken_up.tail.state_dict()[name], tensor), name


@pytest.mark.parametrize("settings", [{"train__epochs": 4, "train__steps": 0}, {"train__steps": 8}])
def test_a_resumed_round_makes_no_view_of_what_was_trained_on_before(settings, monkeypatch):
    """Two batches an epoch, stopped after the second epoch's first; the views are the second's to the fourth's."""
    settings |= {"train__refresh": "epoch", "train__augment": "flip", "train__batch": 4, "memory__size": 0}
    whole, stopped, resumed = (learner(**settings) for _ in range(3))
    play(whole, 1)
    asked = count(1)
    stopped.begin_round()
    with pytest.raises(Stopped):
        stopped.train(1, nothing, None, stop=lambda: next(asked) == 3)
    views = []
    represent = resumed.views.represent
    monkeypatch.setattr(resumed.views, "represent", lambda *given: views.append(given[2]) or represent(*given))
    reached = stopped.training.state()
    resumed.interrupted = lambda: reached
    play(resumed, 1)
    assert views == [resumed._seed("augment", 0, 1, epoch) for epoch in (1, 2, 3)]
    assert same(resumed, whole)
    assert (resumed.forward_counts, resumed.samples) == (whole.forward_counts, whole.samples)


def test_unknown_people_get_no_gradient():
    allowed = torch.zeros(tiny.CLASSES, dtype=torch.bool)
    allowed[[0, 1, 2, 5]] = True
    for mask, still in ((allowed, ~allowed), (None, torch.zeros_like(allowed))):
        tail = tiny.network().tail
        before = tail.classifier.weight.detach().clone()
        train_round(tail, passes([]), Train(steps=4, weight_decay=0), ReferenceRate(1.0), mask, nothing)
        assert torch.equal((tail.classifier.weight == before).all(1), still)


# -- a client ----------------------------------------------------------------------------------------------------------


def same(one: Learner, other: Learner) -> bool:
    states = one.tail.state_dict(), other.tail.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("augment", ["none", "default"])
def test_equal_clients_learn_bit_equal_tails_and_others_do_not(augment):
    settings = {"train__augment": augment, "train__steps": 3, "train__batch": 6}
    one = play(learner(2, **settings), 4)
    torch.manual_seed(77)  # what others draw does not matter
    assert same(one, play(learner(2, **settings), 4))
    assert not same(one, play(learner(3, **settings), 4))
    assert not same(one, play(learner(2, **settings, seed=5), 4))


def test_evaluation_changes_nothing():
    side = play(learner(memory__size=0), 1)
    before = {name: value.clone() for name, value in side.tail.state_dict().items()}
    np.testing.assert_array_equal(tiny.search(side), tiny.search(side))
    assert all(torch.equal(value, before[name]) for name, value in side.tail.state_dict().items())


def test_remembering_changes_nothing():
    assert same(play(learner(memory__size=50), 1), play(learner(memory__size=0), 1))


def test_evaluation_covers_the_tasks_seen_or_all():
    side = play(learner(rounds__per_task=2), 3)
    assert np.isnan(tiny.search(side)[:, 0]).tolist() == [False, False, True]
    side = play(learner(rounds__per_task=2, evaluation__tasks="all"), 1)
    assert not np.isnan(tiny.search(side)).any()
    assert np.isnan(tiny.search(learner())).all()


def test_the_stream_moves_on_with_every_draw():
    side = learner(rounds__per_task=2)
    seen = []
    for _ in range(7):
        side.begin_round()
        seen.append((side.task, side.task_is_new, sorted(side.known)))
    first, second, third = [1, 4], [1, 2, 4, 7, 9], [1, 2, 4, 7, 9, 10]
    assert seen == [
        (0, True, first), (0, False, first), (1, True, second), (1, False, second),
        (2, True, third), (2, False, third), (2, False, third),
    ]  # fmt: skip


def rehearsed(side: Learner, number: int) -> tuple[list[int], list[int]]:
    """Persons of the new and of the old samples in the batches of one pass."""
    new, old = [], []
    fresh = {row.flatten().numpy().tobytes() for row in side.views.trained_on(side.task, number, 0).representations}
    for batch in (make().samples for make in side._epoch(number, 0)):
        for row, person in zip(batch.representations, batch.pids.tolist(), strict=True):
            (new if row.flatten().numpy().tobytes() in fresh else old).append(person)
    return new, old


def test_rehearsal_is_of_past_people_only_under_their_own_ids():
    side = play(learner(rounds__per_task=1, memory__size=10, memory__share=0.5, train__steps=2), 2)
    side.begin_round()
    new, old = rehearsed(side, 3)
    assert sorted(new) == [4] * 4 + [10] * 4
    assert set(old) == {1, 2, 7, 9}  # person 4 is back and is learned again
    truth = {}
    for number, task in enumerate(side.tasks[:2]):
        truth |= dict(
            zip((r.numpy().tobytes() for r in side.views.clean(number, "train")), task.train.pids, strict=True)
        )
    exemplars = side.memory.recall()
    assert exemplars.pids.tolist() == [truth[r.numpy().tobytes()] for r in exemplars.representations]


def test_new_images_are_counted_and_rehearsed_ones_are_not():
    side = play(learner(rounds__per_task=1, train__steps=0, train__epochs=2, train__batch=4), 2)
    assert side.samples == 2 * 12
    assert play(learner(train__steps=5, train__batch=4, memory__size=0), 1).samples == 5 * 4


@pytest.mark.parametrize("refresh", ["task", "round", "epoch"])
def test_augmentation_is_renewed_as_often_as_asked(refresh):
    side = learner(train__refresh=refresh, train__augment="default", rounds__per_task=2)
    views = []
    for number in (1, 2, 3):
        side.begin_round()
        views += [side.views.trained_on(side.task, number, epoch).representations for epoch in (0, 1)]
    same_views = [torch.equal(one, other) for one, other in pairwise(views) if one.shape == other.shape]
    # Rounds 1 and 2 are on task 0; the pairs are: within round 1, round 1 to 2, within round 2, within round 3.
    assert same_views == {"task": [True] * 4, "round": [True, False, True, True], "epoch": [False] * 4}[refresh]


def test_token_and_identity_prototypes_are_means_over_images():
    side = play(learner(rounds__per_task=1), 2)
    images = side.views.clean(1, "train").flatten(1)
    torch.testing.assert_close(side.token(), images.mean(0))
    assert side.tasks[1].train.people.tolist() == [2, 7, 9]
    torch.testing.assert_close(side.identity_prototypes(1), images.view(3, 4, -1).mean(1))


def test_received_prototypes_are_rehearsed_under_the_persons_id():
    side = play(learner(rounds__per_task=1, memory__size=0, train__steps=1), 1)
    rehearse(side, torch.tensor([4]), torch.full((1, 128), 3.5))
    rehearse(side, torch.empty(0, dtype=torch.int64), torch.empty(0, 128))
    side.begin_round()
    assert set(rehearsed(side, 2)[1]) == {4}
    assert play(learner(rounds__per_task=1, memory__size=0, train__steps=1), 2).rehearsed() is None


def test_bfloat16_trains_float32_weights():
    network = tiny.network(precision="bfloat16")
    side = play(learner(network=network, train__steps=2), 1)
    assert {value.dtype for value in side.tail.parameters()} == {torch.float32}
    assert side.extract_features(0, "query", side.tail).dtype == torch.float32
    assert not same(side, play(learner(train__steps=2), 1))


def test_a_client_that_was_never_drawn_shares_the_start_models_memory():
    start = tiny.network()
    before = {name: tensor.clone() for name, tensor in network_state(start).items()}
    drawn, other = learner(0, start), learner(1, start)
    for tensor, own in zip(start.tail.state_dict().values(), other.tail.state_dict().values(), strict=True):
        assert own.data_ptr() == tensor.data_ptr()
    play(drawn, 1)
    for side, moved in ((start, False), (drawn, True)):
        assert torch.equal(side.tail.classifier.weight, before["tail.classifier.weight"]) is not moved
    assert all(torch.equal(tensor, before[name]) for name, tensor in network_state(start).items())
    assert torch.equal(other.tail.classifier.weight, start.tail.classifier.weight)
