import math
from collections import Counter

import numpy as np
import pytest

from fedstil_mpi.client.epochs import EarlyStop, Epoch, ReferenceRate, run_epochs
from fedstil_mpi.client.tasks import task_of_draw
from fedstil_mpi.federation.schedule import plan
from support.golden_files import golden


def replay(losses, accuracies, images=None, rates=None):
    """A `run` for run_epochs that reports these epochs, one after the other, and notes the learning rates in `rates`."""
    images = [1] * len(losses) if images is None else images
    reports = iter(
        [Epoch(float(loss), float(right), int(n)) for loss, right, n in zip(losses, accuracies, images, strict=True)]
    )

    def run(rate):
        if rates is not None:
            rates.append(rate)
        return next(reports)

    return run


def epochs_until_stop(losses, accuracies):
    return len(run_epochs(len(losses), replay(losses, accuracies), EarlyStop(), ReferenceRate(1.0)))


@pytest.mark.parametrize("path", golden("l_schedule"), ids=lambda path: path.stem)
def test_golden_task_of_every_round(path):
    case = np.load(path, allow_pickle=False)
    tasks, per_task = int(case["n_tasks"]), int(case["sustain_rounds"])
    draws = range(1, len(case["task_of_round"]) + 1)
    assert [task_of_draw(draw, per_task, tasks) for draw in draws] == case["task_of_round"].tolist()


@pytest.mark.parametrize("path", golden("l_schedule"), ids=lambda path: path.stem)
def test_golden_epochs_counts_and_rates(path):
    case = np.load(path, allow_pickle=False)
    rate = ReferenceRate(1e-3)
    for row, loss in enumerate(case["loss"]):
        stop, rates = EarlyStop(), []
        run = replay(loss, case["accuracy"][row], case["data_count"][row], rates)
        epochs = run_epochs(len(loss), run, stop, rate)
        assert len(epochs) == case["epochs_run"][row]
        counted = epochs[:-1] if stop.bad >= 3 else epochs  # the reference code leaves the last one out then
        assert sum(epoch.images for epoch in counted) == case["train_cnt"][row]
        np.testing.assert_allclose(rates, case["lr_used"][row][: len(rates)])
        assert np.isnan(case["lr_used"][row][len(rates) :]).all()


@pytest.mark.parametrize(
    ("losses", "accuracies", "run"),
    [
        ([5, 4, 3, 2, 1], [1, 2, 3, 4, 5], 5),
        ([1, 2, 2, 2, 2], [1, 1, 1, 1, 1], 4),
        ([3, 2, 1, 0, 0], [5, 4, 4, 4, 4], 4),  # the loss improves, the accuracy never again
        ([3, 4, 4, 3, 4, 4, 3], [1, 1, 1, 1, 1, 1, 1], 7),  # as good as the best starts the count again
        ([math.nan] * 5, [1] * 5, 3),
    ],
)
def test_early_stop_wants_loss_and_accuracy_at_least_as_good(losses, accuracies, run):
    assert epochs_until_stop(losses, accuracies) == run


def test_without_early_stop_every_epoch_runs():
    rates = []
    epochs = run_epochs(6, replay([1, 2, 3, 4, 5, 6], [0] * 6, rates=rates), None, ReferenceRate(1.0))
    assert [epoch.loss for epoch in epochs] == [1, 2, 3, 4, 5, 6]
    assert rates == [1, 1, 1, 1, 1, 0.1]


def test_reference_rate_drops_every_fifth_epoch_of_a_life_and_is_reset_every_round():
    rate, used = ReferenceRate(1.0), []
    for count in (4, 5, 5):
        used.append([])
        run_epochs(count, replay([1] * count, [1] * count, rates=used[-1]), None, rate)
    assert used == [[1, 1, 1, 1], [1, 0.1, 0.1, 0.1, 0.1], [1, 0.1, 0.1, 0.1, 0.1]]


def test_tasks_last_per_task_draws_and_the_last_one_for_ever():
    assert [task_of_draw(draw, 2, 3) for draw in range(1, 10)] == [0, 0, 1, 1, 2, 2, 2, 2, 2]


def schedule(clients=7, drawn=None, seed=1, **options):
    settings = {"tasks": 3, "per_task": 2, "total": None, "evaluate_every": None} | options
    return plan(
        seed, clients, settings["tasks"], settings["per_task"], settings["total"], drawn, settings["evaluate_every"]
    )


def test_full_participation():
    full = schedule()
    assert list(full.rounds()) == [(round, list(range(7))) for round in range(1, 7)]
    assert [round for round, _ in full.rounds() if full.evaluates(round)] == [2, 4, 6]


def test_drawn_clients_are_distinct_in_order_and_the_same_whoever_asks():
    partial = schedule(drawn=3)
    rounds = dict(partial.rounds())
    assert all(online == sorted(set(online)) and len(online) == 3 for online in rounds.values())
    assert set().union(*rounds.values()) == set(range(7))
    assert partial.online(5) == rounds[5] == schedule(drawn=3).online(5)
    assert rounds != dict(schedule(drawn=3, seed=2).rounds())


def test_every_client_is_drawn_about_equally_often():
    draws = Counter(client for _, online in schedule(clients=6, drawn=2, total=3000).rounds() for client in online)
    # Binomial with n = 3000 and p = 1/3: mean 1000, standard deviation 26.
    assert all(abs(count - 1000) < 130 for count in draws.values())


def test_as_many_rounds_as_all_clients_need_for_all_tasks():
    assert schedule().total == 6
    assert schedule(drawn=3).total == 14  # 7 clients x 3 tasks x 2 rounds / 3
    assert schedule(clients=5, drawn=4).total == 8  # 30 / 4, rounded up
    assert schedule(drawn=99).total == 6
    assert schedule(total=11).total == 11


def test_the_last_round_is_always_evaluated():
    assert [round for round in range(1, 12) if schedule(total=11, evaluate_every=4).evaluates(round)] == [4, 8, 11]
