import numpy as np
import torch
from torch import Tensor

from fedstil_mpi.methods import multi, single
from fedstil_mpi.models.network import Tail
from support import tiny

STREAMS = [
    [tiny.task(1, 2, seed=1), tiny.task(3, 4, seed=2), tiny.task(5, 1, seed=3)],
    [tiny.task(2, 5, seed=4), tiny.task(6, 7, seed=5), tiny.task(8, 9, seed=6)],
]


def federation(method: str, settings: dict | None = None) -> tiny.Federation:
    common = {"train.steps": 2, "train.batch": 6, "rounds.per_task": 2}
    return tiny.federation(tiny.experiment(common | (settings or {}), method), STREAMS)


def state(tail: Tail) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tail.state_dict().items()}


def equal(tail: Tail, expected: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, expected[name]) for name, tensor in tail.state_dict().items())


def test_a_task_keeps_the_model_of_its_last_round():
    """Client 1 misses some rounds, so that the clients end their tasks at different times."""
    result = federation("multi")
    newest: dict[tuple[int, int], dict[str, Tensor]] = {}
    for number in range(1, 9):
        result.play(number, [0] if number in (2, 5) else [0, 1])
        for client, side in enumerate(result.clients):
            newest[client, side.learner.task] = state(side.learner.tail)
            for task in range(side.learner.task + 1):
                assert equal(side.tail_for(task), newest[client, task])
            for task in range(side.learner.task + 1, 3):
                assert side.tail_for(task) is side.learner.tail
    assert {task for client, task in newest if client == 1} == {0, 1, 2}
    for side in result.clients:
        assert [equal(side.tail_for(task), newest[side.learner.client, 2]) for task in range(3)] == [False, False, True]


def test_training_is_that_of_single_bit_for_bit():
    for settings in ({"memory.size": 0}, {"memory.size": 6}):
        pair = federation("multi", settings), federation("single", settings)
        for number in range(1, 7):
            for result in pair:
                result.play(number, [0, 1])
            for mine, other in zip(pair[0].clients, pair[1].clients, strict=True):
                assert equal(mine.learner.tail, state(other.learner.tail))


def test_what_is_found_in_a_finished_task_stays_found():
    result = federation("multi")
    side = result.clients[0]
    for number in (1, 2):
        result.play(number, [0])
    after_first = tiny.search(side.learner, side.tail_for)[0]
    for number in (3, 4, 5):
        result.play(number, [0])
    np.testing.assert_array_equal(tiny.search(side.learner, side.tail_for)[0], after_first)
    features = [tail.features(side.learner.views.clean(0, "query")) for tail in (side.tail_for(0), side.tail_for(2))]
    assert not torch.equal(*features)


def test_nothing_travels_and_only_multi_is_task_aware():
    result = federation("multi")
    for number in (1, 2, 3):
        result.play(number, [0, 1])
    assert result.ledger.entries == []
    assert multi.Client.task_aware
    assert not single.Client.task_aware
    assert multi.PRESETS == single.PRESETS


def test_prototypes_leave_each_task_its_model():
    result = federation("multi", {"prototypes.exchange": True})
    for number in (1, 2, 3):
        result.play(number, [0, 1])
    side = result.clients[0]
    assert side.task_aware
    assert side.tail_for(0) is not side.learner.tail
    assert side.tail_for(1) is side.learner.tail
