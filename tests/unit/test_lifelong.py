import warnings

import numpy as np
import pytest

from fedstil_mpi.evaluation.lifelong import average_accuracy, backward_transfer, forgetting

NAN = np.nan
# Task 0: learned 0.8, then 0.9, ends at 0.5. Task 1: learned 0.7, ends at 0.75. Task 3 is not trained yet.
ACCURACY = np.array(
    [
        [0.80, 0.10, 0.20, 0.30],
        [0.90, 0.70, 0.20, 0.30],
        [0.50, 0.75, 0.60, 0.30],
    ]
)


def test_by_hand():
    assert average_accuracy(ACCURACY) == pytest.approx((0.50 + 0.75 + 0.60) / 3)
    assert forgetting(ACCURACY) == pytest.approx(((0.90 - 0.50) + (0.70 - 0.75)) / 2)
    assert backward_transfer(ACCURACY) == pytest.approx(((0.50 - 0.80) + (0.75 - 0.70)) / 2)


def test_nothing_changes_nothing_is_forgotten():
    constant = np.full((5, 5), 0.6)
    assert forgetting(constant) == 0
    assert backward_transfer(constant) == 0
    assert average_accuracy(constant) == pytest.approx(0.6)


def test_forgetting_is_loss_where_accuracy_only_falls():
    """If every task is best right after its training, forgetting is minus backward transfer."""
    falling = np.tril(np.full((6, 6), 0.9) - 0.1 * np.subtract.outer(np.arange(6), np.arange(6)))
    assert forgetting(falling) == pytest.approx(-backward_transfer(falling))
    assert forgetting(falling) == pytest.approx(0.1 * (5 + 4 + 3 + 2 + 1) / 5)


def test_tasks_of_the_future_do_not_matter():
    changed = ACCURACY.copy()
    changed[:, 3] = NAN
    changed[0, 2] = 1.0
    for metric in (average_accuracy, forgetting, backward_transfer):
        assert metric(changed) == metric(ACCURACY)


def test_what_was_not_evaluated_is_left_out():
    holes = ACCURACY.copy()
    holes[1, 0] = NAN  # the best of task 0 is now its first value
    assert forgetting(holes) == pytest.approx(((0.80 - 0.50) + (0.70 - 0.75)) / 2)
    holes[2, 1] = NAN  # task 1 has no value now
    assert forgetting(holes) == pytest.approx(0.80 - 0.50)
    assert average_accuracy(holes) == pytest.approx((0.50 + 0.60) / 2)
    assert backward_transfer(holes) == pytest.approx(0.50 - 0.80)

    never_before = ACCURACY.copy()
    never_before[:2, 0] = NAN  # task 0 has no value but now's
    assert forgetting(never_before) == pytest.approx(0.70 - 0.75)
    assert backward_transfer(never_before) == pytest.approx(0.75 - 0.70)


def test_clients_are_stacked():
    clients = np.stack([ACCURACY, ACCURACY[::-1], np.full_like(ACCURACY, 0.5)])
    for metric in (average_accuracy, forgetting, backward_transfer):
        np.testing.assert_array_equal(metric(clients), [metric(client) for client in clients])


def test_undefined_is_nan_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = ACCURACY[:1]
        assert average_accuracy(first) == 0.80
        assert np.isnan(forgetting(first))
        assert np.isnan(backward_transfer(first))
        nothing = np.full((2, 3, 4), NAN)
        for metric in (average_accuracy, forgetting, backward_transfer):
            assert np.isnan(metric(nothing)).all()
