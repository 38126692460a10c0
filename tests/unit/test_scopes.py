"""Where queries are searched: in their task's gallery, in all of their client's, or in the global one."""

import copy
import re
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedstil_mpi import report
from fedstil_mpi.client.learner import Learner
from fedstil_mpi.comm.exchange import InProcessExchange
from fedstil_mpi.data.streams.base import Images, Task
from fedstil_mpi.evaluation import retrieval
from fedstil_mpi.evaluation.lifelong import METRICS
from fedstil_mpi.evaluation.scopes import Scopes, headline
from fedstil_mpi.evaluation.search import Search, gather
from fedstil_mpi.models.network import Network, Stem, Tail
from fedstil_mpi.results.reading.measures import at_end
from fedstil_mpi.results.report import paired, tables
from fedstil_mpi.util import hdf5
from support import made_runs, tiny
from support.forecasts import make

SCOPES = ("task", "client", "all")
RANK1, RANK3, MAP = (METRICS.index(name) for name in ("rank1", "rank3", "map"))

# -- people at angles --------------------------------------------------------------------------------------------------

Sight = tuple[int, float, int]
"""A person, the angle in degrees at which the stem sees them, and the camera; likeness falls with the angle between."""


def turned_by(degrees: float) -> Tensor:
    angle = torch.tensor(degrees).deg2rad()
    return torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])


def client(number: int, *tasks: tuple[Sequence[Sight], Sequence[Sight]], turn: float = 0.0) -> Learner:
    """A client that was drawn for each of its tasks, (queries, gallery); its model turns what the stem sees."""
    network = Network(
        Stem({"none": nn.Identity()}), Tail({"turn": nn.Linear(2, 2, bias=False)}, 2, 9, "plain"), frozenset()
    )
    representations = {
        (number, task, split): torch.stack([turned_by(angle)[:, 0] for _, angle, _ in sights])
        for task, both in enumerate(tasks)
        for split, sights in zip(("query", "gallery"), both, strict=True)
    }
    stream = [Task(images([(both[0][0])]), images(both[0]), images(both[1])) for both in tasks]
    config = tiny.experiment({"rounds.per_task": 1})
    learner = Learner(number, config, stream, network, representations)
    with torch.no_grad():
        learner.tail.get_parameter("trunk.turn.weight").copy_(turned_by(turn))
    for _ in tasks:
        learner.begin_round()
    return learner


def images(sights: Sequence[Sight]) -> Images:
    """Images of one pixel, which only shows one from another."""
    pixels = np.array([[[[person, int(angle) % 256, camera]]] for person, angle, camera in sights], np.uint8)
    people, cameras = (np.array([sight[i] for sight in sights], np.int64) for i in (0, 2))
    return Images(pixels, people, cameras)


FIRST = (
    ([(1, 0, 0)], [(1, 30, 9), (2, 50, 9)]),
    ([(3, 90, 0)], [(3, 100, 9), (4, 10, 9)]),
)
SECOND = (
    ([(5, 200, 1)], [(1, 5, 9), (5, 215, 9)]),
    ([(6, 250, 1)], [(6, 240, 9)]),
)


def search(*searches: Search) -> dict[str, np.ndarray]:
    """All clients' metrics by scope, [clients, tasks, metrics]."""
    everywhere = gather(InProcessExchange().share, {search.learner.client: search.joined for search in searches}, 2)
    found = np.stack([search.evaluate(Scopes(SCOPES), everywhere) for search in searches], axis=1)
    return dict(zip(SCOPES, found, strict=True))


@pytest.mark.parametrize(
    ("scope", "turn", "rank1", "average_precision"),
    [
        # Person 1 at 30 comes before 2 at 50; person 3 at 100 before 4 at 10.
        ("task", 0, [1, 1], [1, 1]),
        # Person 4 at 10 comes before 1 at 30.
        ("client", 0, [0, 1], [1 / 2, 1]),
        # The other client has person 1 at 5, before 4 at 10 and itself at 30.
        ("all", 0, [1, 1], [(1 + 2 / 3) / 2, 1]),
        # It sees 1 at 85 now, 5 at 295 and 6 at 320: from 0 the order is 4, 1, 6, 2, 5, 1; from 90 it is 1, 3.
        ("all", 80, [0, 0], [(1 / 2 + 2 / 6) / 2, 1 / 2]),
        ("client", 80, [0, 1], [1 / 2, 1]),
    ],
)
def test_by_hand(scope, turn, rank1, average_precision):
    found = search(Search(client(0, *FIRST)), Search(client(1, *SECOND, turn=turn)))[scope]
    np.testing.assert_allclose(found[0, :, RANK1], rank1)
    np.testing.assert_allclose(found[0, :, MAP], average_precision)
    np.testing.assert_allclose(found[1, :, [RANK1, MAP]], 1)


def test_what_the_querys_camera_saw_at_other_clients_is_junk():
    first = ([(1, 0, 0)], [(1, 30, 9), (2, 20, 9)])
    own, other = ([(5, 200, 1)], [(1, 5, 0), (5, 215, 9)]), ([(5, 200, 1)], [(1, 5, 8), (5, 215, 9)])
    for second, rank1 in ((own, 0), (other, 1)):
        found = search(Search(client(0, first)), Search(client(1, second)))
        assert found["all"][0, 0, RANK1] == rank1


def test_an_image_in_several_galleries_of_a_client_is_there_once():
    """Two of the three distractors before person 1 are duplicates of the third: it is second, not fourth."""
    distractor = (2, 10, 9)
    tasks = [([(1, 0, 0)], [(1, 30, 9), distractor]), *[([(3, 90, 0)], [distractor, (3, 100, 9)])] * 2]
    found = search(Search(client(0, *tasks)))
    for scope in ("client", "all"):
        first = found[scope][0, 0]
        assert (first[RANK1], first[RANK3], first[MAP]) == (0, 1, 1 / 2)


def test_an_image_that_two_clients_hold_is_there_for_each():
    """As both describe it: one before person 1 at 30, one after."""
    mine, theirs = ([(1, 0, 0)], [(2, 10, 9), (1, 30, 9)]), ([(5, 200, 1)], [(2, 10, 9), (1, 30, 9), (5, 215, 9)])
    found = search(Search(client(0, mine)), Search(client(1, theirs, turn=25)))["all"][0, 0]
    # 2 at 10, 1 at 30, 2 at 35, 1 at 55
    np.testing.assert_allclose(found[MAP], (1 / 2 + 2 / 4) / 2)


# -- strangers ---------------------------------------------------------------------------------------------------------


def test_strangers_are_measured_apart_in_the_same_galleries():
    """Person 7 at 5 comes before 1 at 30; from 20, 1 at 30 comes before 7, which was at 5."""
    tasks = ([(1, 0, 0), (7, 20, 0)], [(1, 30, 9), (7, 5, 9)]), ([(3, 90, 0)], [(3, 100, 9)])
    scopes = Scopes.of(["task", "client"], 7, [images(queries).pids for queries, _ in tasks])
    assert scopes.names == ["task", "client", "strangers_task", "strangers_client"]
    found = Search(client(0, *tasks)).evaluate(scopes, None)
    np.testing.assert_allclose(found[:, :, MAP], [[1 / 2, 1], [1 / 2, 1], [1 / 2, np.nan], [1 / 2, np.nan]])
    assert np.isnan(found[2:, 1]).all()  # counted, too


def test_strangers_cost_no_more_features():
    """Three queries, and with a model for each task each of both galleries by each of both models."""
    tasks = ([(1, 0, 0), (7, 20, 0)], [(1, 30, 9), (7, 5, 9)]), ([(3, 90, 0)], [(3, 100, 9)])
    learner = client(0, *tasks)
    Search(learner, one_at_a_time(learner, 0, 0)).evaluate(Scopes(SCOPES[:2], 7, (False, True)), None)
    assert learner.forward_counts["search"] == 3 + 2 * 3


@pytest.mark.parametrize(
    ("queries", "names", "first"),
    [
        ([[0, 6], [3]], ["all", "client"], "client"),
        ([[7], [9]], ["strangers_all", "strangers_client"], "strangers_client"),
        ([[0], [9]], ["all", "client", "strangers_all", "strangers_client"], "client"),
    ],
)
def test_a_scope_is_there_where_somebody_asks(queries, names, first):
    """Of 7 people trained on: nobody knows of which group a stream's people are but the stream."""
    scopes = Scopes.of(["all", "client"], 7, map(np.array, queries))
    assert (scopes.names, headline(scopes.names)) == (names, first)
    assert headline(["all", "task"]) == "all"


# -- clients that learn ------------------------------------------------------------------------------------------------

STREAMS = [
    [tiny.task(1, 2, seed=1), tiny.task(3, 4, 5, seed=2)],
    [tiny.task(2, 5, seed=3), tiny.task(1, 6, seed=4)],
    [tiny.task(7, 8, seed=5), tiny.task(2, 9, seed=6)],
]


def federation(*scopes: str, streams: Sequence = STREAMS, method: str = "single", rounds: int = 2) -> tiny.Federation:
    settings = {"train.steps": 2, "train.batch": 6, "rounds.per_task": 1, "evaluation.gallery": list(scopes)}
    result = tiny.federation(tiny.experiment(settings, method), streams)
    for number in range(1, rounds + 1):
        result.play(number, range(len(streams)))
    return result


def doubled(task: Task) -> Task:
    """Each gallery image is there twice."""
    once = task.gallery
    twice = Images(*(np.concatenate([part, part]) for part in (once.pixels, once.pids, once.cameras)))
    return Task(task.train, task.query, twice)


def test_a_client_with_one_task_has_nothing_to_join():
    streams = [[doubled(tasks[0])] for tasks in STREAMS]
    of_client, of_task = federation("client", "task", streams=streams).search().swapaxes(0, 1)
    np.testing.assert_array_equal(of_client, of_task)


def test_the_global_gallery_is_that_of_the_only_client():
    of_task, of_client, of_all = federation(*SCOPES, streams=STREAMS[:1]).search().swapaxes(0, 1)
    np.testing.assert_array_equal(of_all, of_client)
    assert (of_client != of_task).any()


@pytest.mark.parametrize(("method", "by_task"), [("single", False), ("fedweit", True)])
def test_a_scope_is_searched_as_it_is_alone_and_others_cost_no_features(method, by_task):
    together = federation(*SCOPES, method=method)
    found = together.search(by_task)
    before = [federation(scope, method=method) for scope in SCOPES]
    for at, alone in enumerate(before):
        np.testing.assert_array_equal(alone.search(by_task)[:, 0], found[:, at])
    counts = [sum(side.learner.forward_counts["search"] for side in of.clients) for of in (together, *before)]
    assert counts[0] == max(counts[1:])


def test_with_one_model_everywhere_it_is_one_search_over_the_union():
    result = federation("all")
    one = result.clients[0].learner.tail
    for side in result.clients:
        side.learner.tail.load_state_dict(one.state_dict())
    galleries = [task.gallery for tasks in STREAMS for task in tasks]
    described = [
        side.learner.extract_features(task, "gallery", one)
        for side in result.clients
        for task in range(len(STREAMS[0]))
    ]
    found = result.search()
    for number, side in enumerate(result.clients):
        for task, images in enumerate(STREAMS[number]):
            union = retrieval.evaluate(
                side.learner.extract_features(task, "query", one),
                images.query.pids,
                torch.cat(described),
                np.concatenate([gallery.pids for gallery in galleries]),
                images.query.cameras,
                np.concatenate([gallery.cameras for gallery in galleries]),
            )
            assert found[number, 0, task].tolist() == [
                *(union.rank(k) for k in (1, 3, 5, 10)),
                union.map,
                union.counted,
            ]


def test_who_was_never_drawn_is_neither_searched_nor_searches():
    result = federation("all", rounds=0)
    assert np.isnan(result.search()).all()
    result.play(1, [0, 2])
    found = result.search()[:, 0]
    assert np.isfinite(found[:, 0]).all(axis=1).tolist() == [True, False, True]
    assert np.isnan(found[:, 1]).all()  # the second task has not begun
    own = {client: Search(side.learner).joined for client, side in enumerate(result.clients)}
    assert [len(gallery.features) for gallery in own.values()] == [2, 0, 2]
    everywhere = gather(InProcessExchange().share, own, 6)
    assert everywhere.gallery.labels[:, 0].tolist() == [1, 2, 7, 8]
    assert everywhere.owners.tolist() == [0, 0, 2, 2]


# -- a model for each task ---------------------------------------------------------------------------------------------


def one_at_a_time(learner: Learner, *turns: float):
    """A model for each task, valid until the next is asked for."""
    shown = copy.deepcopy(learner.tail)

    def tail_for(task: int) -> Tail:
        with torch.no_grad():
            shown.get_parameter("trunk.turn.weight").copy_(turned_by(turns[task]))
        return shown

    return tail_for


@pytest.mark.parametrize(
    ("scope", "average_precision"),
    [
        ("task", [1, 1]),
        # Turned alike, person 4 is still at 10 from the first query, before 1 at 30.
        ("client", [1 / 2, 1]),
        ("all", [1 / 2, 1]),
    ],
)
def test_a_querys_model_describes_all_of_its_clients_galleries(scope, average_precision):
    """Were each described by its own task's, persons 1 and 2 stood at 30 and 50, 3 and 4 at 45 and -45: no distractors."""
    learner = client(0, *FIRST)
    found = search(Search(learner, one_at_a_time(learner, 0, -55)))
    np.testing.assert_allclose(found[scope][0, :, MAP], average_precision)


def test_what_others_have_is_described_by_their_tasks_models():
    """From 0 and, turned, 35: the other client has 1 at 5, turned 5 at 215 and 6 at 185, between 4 at 10 and 1 at 30."""
    learner, other = client(0, *FIRST), client(1, *SECOND)
    found = search(Search(learner, one_at_a_time(learner, 0, -55)), Search(other, one_at_a_time(other, 0, -55)))
    np.testing.assert_allclose(found["all"][0, :, MAP], [(1 + 2 / 3) / 2, 1])


# -- what is predicted and reported ------------------------------------------------------------------------------------

FEATURE = 4 * 1280
"""Bytes of MobileNetV2's."""


def test_memory_by_hand():
    """tiny.yaml: 3 clients, 2 tasks of 4 people with a query and a gallery image each; clients 0 and 1 share a rank."""
    usual = [footprint.parts for footprint in make("evaluation.gallery=task", ranks=3).footprints]
    of_one, of_all, queries = 2 * 4, 3 * 2 * 4, 4
    compared = 4 * FEATURE + 50 * queries
    assert [parts.get("search") for parts in usual] == [None, *[of_one * (FEATURE + compared)] * 2]
    joined = FEATURE + compared
    expected = {
        "[client]": ([of_one * FEATURE + of_one * joined] * 2, [0, 0, 0]),
        "[all]": ([held * of_one * FEATURE + of_all * joined for held in (2, 1)], [24, 24 + 16, 24 + 8]),
        "[all,task,client]": (
            [held * of_one * FEATURE + (of_all + of_one) * joined for held in (2, 1)],
            [24, 24 + 16, 24 + 8],
        ),
    }
    for scopes, (search, exchanged) in expected.items():
        parts = [footprint.parts for footprint in make(f"evaluation.gallery={scopes}", ranks=3).footprints]
        assert [own.get("search") for own in parts] == [None, *search]
        more = [own["exchange"] - before["exchange"] for own, before in zip(parts, usual, strict=True)]
        assert more == [images * FEATURE for images in exchanged]


def test_reports_name_the_scope_and_compare_no_two(tmp_path):
    for scope in SCOPES:
        made_runs.write(tmp_path / scope, made_runs.FIRST, method="fedavg", scopes={scope: 0})
    text = report.text(report.load([tmp_path], None), [])
    assert "**Warning: not comparable.** evaluation.gallery is not the same" in text
    assert all(f"- **scope {scope}**:" in text for scope in SCOPES)
    text = report.text(report.load([tmp_path / "task"], None), [])
    assert "not comparable" not in text
    assert [scope for scope in SCOPES if f"- **scope {scope}**:" in text] == ["task"]


def without_scopes(path):
    """Results as older versions wrote them."""

    def fill(older):
        with hdf5.parsed(path, "results") as file:
            older.attrs.update(file.attrs)
            for name in file.keys() - {"scope"}:
                file.copy(name, older)
        for view in (older["local"], older["served"]):
            for name in ("metrics", "accuracy_matrix/rank1", *(f"final/{name}" for name in view["final"])):
                values = view[name][()]
                del view[name]
                view[name] = values.squeeze(axis=2 if name == "metrics" else 1)

    path.write_bytes(hdf5.made(fill))


def test_runs_that_did_not_know_of_scopes_searched_their_tasks_galleries(tmp_path):
    config = made_runs.write(tmp_path / "old", made_runs.FIRST) / "config.yaml"
    text, replaced = re.subn(r"\n  gallery:\n  - task\n", "\n", config.read_text())
    assert replaced == 1
    config.write_text(text)
    without_scopes(tmp_path / "old" / "results.h5")
    made_runs.write(tmp_path / "new", made_runs.FIRST, seed=2)
    (variant,) = report.load([tmp_path], None).variants
    assert variant.seeds == [1, 2]
    assert [run.scopes for run in variant.runs] == [("task",)] * 2
    assert [at_end(run, "served", "rank1", "task") for run in variant.runs] == [pytest.approx(60)] * 2
    made_runs.write(tmp_path / "other", made_runs.SECOND, scopes={"all": 0})
    assert "evaluation.gallery is not the same" in report.text(report.load([tmp_path], None), [])


def test_reports_have_every_scope_side_by_side(tmp_path):
    """FedAvg ends at 60 and 70, FedSTIL at 70 and 70 in the client's galleries, and both 10 higher in their tasks'."""
    for seed, served in ((1, made_runs.FIRST), (2, made_runs.SECOND)):
        made_runs.write(tmp_path / f"a{seed}", served, method="fedavg", seed=seed, scopes={"task": 0.1, "client": 0})
        made_runs.write(tmp_path / f"b{seed}", made_runs.SECOND, seed=seed, scopes={"task": 0.2, "client": 0})
    loaded = report.load([tmp_path], None)
    text = report.text(loaded, [])
    assert "| fedavg | 2 | 75.0 ± 7.1 | 65.0 ± 7.1 |" in text
    assert "| fedavg | task | 2 | +15.0 | – | +10.0 | +20.0 | – |" in text
    assert "| fedavg | client | 2 | +5.0 | – | +0.0 | +10.0 | – |" in text
    assert "After the last round, scope client;" in text
    (accuracy, *_), _ = tables.main_table(loaded.variants).rows.values()
    assert accuracy.mean == pytest.approx(65)
    rows = [(row["variant"], row["seed"], row["scope"], row["served_rank1"]) for row in paired.by_seed(loaded.variants)]
    assert rows[:2] == [("fedavg", 1, "task", pytest.approx(70)), ("fedavg", 1, "client", pytest.approx(60))]
    assert len(rows) == 8


def test_reports_tell_of_strangers_where_there_are_any(tmp_path):
    made_runs.write(tmp_path / "a", made_runs.FIRST, scopes={"client": 0, "strangers_client": -0.25})
    text = report.text(report.load([tmp_path], None), [])
    assert "| fedstil | 1 | 60.0 | 35.0 |" in text
    assert "After the last round, scope client;" in text
    assert "- **strangers**: " in text
    made_runs.write(tmp_path / "b" / "c", made_runs.FIRST, scopes={"client": 0})
    text = report.text(report.load([tmp_path / "b"], None), [])
    assert "strangers" not in text
    assert "## By scope" not in text
