"""Tasks with no query, or nothing to search it in, as small sets have them: they are trained on as the others are."""

from dataclasses import replace

import numpy as np
import pytest

from fedstil_mpi import methods
from fedstil_mpi.data.inspection.remarks import remarks
from fedstil_mpi.evaluation.scopes import Scopes
from fedstil_mpi.evaluation.search import Search
from fedstil_mpi.federation.plan import make_plan
from fedstil_mpi.federation.schedule import plan as schedule_of
from fedstil_mpi.util.errors import InputError
from support import played, tiny

SETTINGS = {
    "train.steps": 2,
    "prototypes.exchange": True,
    "memory.size": 6,
    "evaluation.gallery": ["client", "task", "all"],
}
SCHEDULE = schedule_of(1, 4, 3, 1, 3, None, 1)
WHERE = 1, 1
"""The client and the task."""


def without(*splits: str):
    """`played.FOUR` where one task has nothing in these splits."""
    streams = [list(tasks) for tasks in played.FOUR]
    client, task = WHERE
    none = np.arange(0)
    empty = {split: getattr(streams[client][task], split).select(none) for split in splits}
    streams[client][task] = replace(streams[client][task], **empty)
    return streams


@pytest.mark.parametrize("method", ["fedstil", "fedweit"])
def test_without_a_query_all_else_is_trained_and_found_as_with_it(method, tmp_path):
    config = tiny.experiment(SETTINGS, method)
    played_with = []
    for name, streams in (("all", played.FOUR), ("others", without("query"))):
        (tmp_path / name).mkdir()
        played_with.append(played.play_recorded(config, streams, SCHEDULE, tmp_path / name, in_files=False))
    (f, of_all), (g, of_others) = played_with
    for model, rounds in of_all.metrics.items():
        for round, metrics in rounds.items():
            found = of_others.metrics[model][round]
            client, task = WHERE
            assert np.isnan(found[client, :, task]).all()
            there = np.ones(metrics.shape, bool)
            there[client, :, task] = False
            np.testing.assert_array_equal(found[there], metrics[there])
    assert [a.fingerprint() for a in played.learners(f)] == [b.fingerprint() for b in played.learners(g)]


@pytest.mark.parametrize("splits", [("query",), ("gallery",), ("query", "gallery")])
def test_a_plan_counts_what_a_run_does(splits):
    config = tiny.experiment(SETTINGS, "fedstil")
    streams = without(*splits)
    foretold, done = (play(config, streams, SCHEDULE) for play in (played.count, played.play))
    for counted, learner in zip(played.learners(foretold), played.learners(done), strict=True):
        assert counted.forward_counts == learner.forward_counts


@pytest.mark.parametrize("protocol", ["market", "reference_code"])
def test_without_a_gallery_a_task_is_not_searched_and_no_miss(protocol):
    f = played.play(tiny.experiment(SETTINGS | {"evaluation.protocol": protocol}), without("gallery"), SCHEDULE)
    client, task = Search(f.clients[WHERE[0]].learner).evaluate(Scopes(["client", "task"]), None)
    assert np.isnan(task[WHERE[1]][:-1]).all()
    assert task[WHERE[1]][-1] == 0  # of the queries none is counted
    assert not np.isnan(client[WHERE[1]]).all()


def plan(streams):
    config = tiny.experiment(SETTINGS, "fedstil")
    return make_plan(config, methods.load("fedstil"), played.Given(streams))


def test_it_is_said():
    lines = remarks(played.Given(without("query")))
    assert lines[0] == "1 of 12 tasks have no query: they are trained on, and not searched"
    assert plan(without("query")).scopes.names == plan(played.FOUR).scopes.names
    assert not any("no query" in line for line in remarks(played.Given(played.FOUR)))


def test_some_task_must_be_searched():
    for split in ("query", "gallery"):
        streams = [
            [replace(task, **{split: getattr(task, split).select(np.arange(0))}) for task in tasks]
            for tasks in played.FOUR
        ]
        with pytest.raises(InputError, match=f"no task has {split} images"):
            plan(streams)


def test_every_task_must_be_trained_on():
    streams = without()
    streams[2][0] = replace(streams[2][0], train=streams[2][0].train.select(np.arange(1)))
    with pytest.raises(InputError, match="client 2, task 0 has 1 images to train on, expected at least 2"):
        plan(streams)
