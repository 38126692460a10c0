"""Clients are dealt to ranks longest first, and move no more than it takes; one that moves takes along all that there is of it."""

import gc
import json
import weakref
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fedstil_mpi.client.learner import Learner
from fedstil_mpi.comm.exchange import InProcessExchange
from fedstil_mpi.config import loading
from fedstil_mpi.config.schema import Participation
from fedstil_mpi.data.sources import open_stream
from fedstil_mpi.data.streams.on_demand import made_of
from fedstil_mpi.evaluation.search import Gallery, gather
from fedstil_mpi.federation import balance, moving
from fedstil_mpi.federation.balance import Dealing, deal, dealing, loads, work_of
from fedstil_mpi.federation.messages import message_schema
from fedstil_mpi.federation.roster import Roster
from fedstil_mpi.federation.rounds import NoCheckpoints, run_rounds
from fedstil_mpi.federation.schedule import plan as schedule_of
from fedstil_mpi.federation.setup import connect
from fedstil_mpi.federation.shared_resources import SharedResources
from fedstil_mpi.federation.state import nowhere
from fedstil_mpi.federation.trainer import OneByOne
from fedstil_mpi.launch.placement import assign_clients
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.shelf import Shelf
from fedstil_mpi.util.state_tree import flatten
from support import TINY, played, tiny

# -- who plays whom ----------------------------------------------------------------------------------------------------


def test_longest_first_by_hand():
    """Graham's example, in which the rule is as bad as it can be on two ranks: 7, where 3+3 and 2+2+2 would be 6."""
    work = {0: 3, 1: 3, 2: 2, 3: 2, 4: 2}
    dealt = deal(work, {}, [1, 2])
    assert dealt == {0: 1, 1: 2, 2: 1, 3: 2, 4: 1}
    assert loads(work, dealt) == {1: 7, 2: 5}


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        ({0: 1, 1: 1, 2: 2, 3: 2}, {0: 1, 1: 1, 2: 2, 3: 2}),  # as even as can be: nobody moves
        ({0: 2, 1: 1, 2: 2, 3: 1}, {0: 2, 1: 1, 2: 2, 3: 1}),
        ({0: 1, 1: 1, 2: 1, 3: 2}, {0: 1, 1: 1, 2: 2, 3: 2}),  # one has to
        ({0: 1, 1: 1, 2: 1}, {0: 1, 1: 1, 2: 2, 3: 2}),  # 3 is nowhere yet
        ({0: 7, 1: 7, 2: 2, 3: 2}, {0: 1, 1: 1, 2: 2, 3: 2}),  # 7 does not play
    ],
)
def test_of_equal_clients_those_move_of_whom_their_rank_has_too_many(has, expected):
    assert deal(dict.fromkeys(range(4), 5), has, [1, 2]) == expected


def test_the_longest_stays():
    assert deal({0: 1, 1: 1, 2: 2}, {0: 1, 1: 1, 2: 1}, [1, 2]) == {2: 1, 0: 2, 1: 2}


def drawn_rounds():
    """(work, has, ranks) of 30 clients, of whom ranks have 20."""
    draw = np.random.default_rng(1)
    for _ in range(200):
        clients, ranks = draw.permutation(100)[:30].tolist(), range(1, 6)
        work = {client: int(draw.integers(1, 9)) for client in clients}
        yield work, {client: int(draw.integers(1, 6)) for client in clients[:20]}, ranks


def test_a_drawn_round_is_as_even_as_longest_first_and_is_left_alone_when_dealt_again():
    for work, has, ranks in drawn_rounds():
        dealt, most = deal(work, has, ranks), max(loads(work, deal(work, {}, ranks)).values())
        assert dealt.keys() == work.keys()
        assert max(loads(work, dealt).values()) <= most
        assert most <= max(sum(work.values()) / 5 + max(work.values()) * 4 / 5, max(work.values()))  # Graham 1966
        assert deal(work, dealt, ranks) == dealt
        assert deal(dict(reversed(work.items())), has, ranks) == dealt  # whatever order they come in


def test_few_move(monkeypatch):
    """Of 20; wherever they were, 16 would. More would if clients that stay could not leave room for others."""

    def moved():
        return np.mean(
            [sum(deal(*given)[client] != rank for client, rank in given[1].items()) for given in drawn_rounds()]
        )

    usual = moved()
    monkeypatch.setattr(balance, "STAYING", (1.0,))
    assert usual < min(5, moved())


def test_nobody_is_online():
    assert deal({}, {}, [1, 2]) == {}


def followed(work, rank_of, *, on_demand):
    return [dict(after) for after in Dealing(work, [1, 2], on_demand).follow(rank_of)]


def test_who_has_not_been_online_yet_is_on_no_rank_where_images_are_made_on_demand():
    """Both are their rank 1's at first: 1 goes to 2 while it is free, and stays."""
    work, first = [{0: 1, 1: 1}, {1: 1}, {0: 1, 2: 1}], {0: 1, 1: 1, 2: 1}
    assert followed(work, first, on_demand=True) == [{0: 1, 1: 2, 2: 1}, {0: 1, 1: 2, 2: 1}, {0: 1, 1: 2, 2: 2}]


def test_loaded_images_tie_a_client_to_its_rank_from_the_beginning():
    """One of three has to move from rank 2: the last, not the first that nobody has met."""
    work, first = [{0: 1, 1: 1, 2: 1}], {0: 2, 1: 2, 2: 2}
    assert followed(work, first, on_demand=False) == [{0: 2, 1: 2, 2: 1}]
    assert followed(work, first, on_demand=True) == [{0: 1, 1: 2, 2: 1}]


def test_where_clients_are_in_the_end():
    assert Dealing([{0: 1, 1: 1}], [1, 2], True).in_the_end([(), (0, 1), ()]) == [[], [0], [1]]
    assert Dealing([{0: 1, 1: 1}], [], True).in_the_end([(), (0, 1), ()]) == [[], [0, 1], []]


# -- what there is to do -----------------------------------------------------------------------------------------------


def experiment(*overrides):
    return loading.resolve(loading.read(TINY, ["method.name=fedavg", *overrides]))


def plan_and_stream(config, drawn, total=6):
    stream = open_stream(config.data, 1)
    schedule = schedule_of(1, stream.clients, stream.tasks, 1, total, drawn, None, config.participation)
    return played.plan_of(config, schedule), stream


def test_work_is_steps_or_the_batches_of_epochs_and_less_for_stragglers():
    """Four people with three images make two batches of eight."""
    half = Participation(stragglers=1, straggler_effort=0.5)
    for settings, expected in (
        (["train.steps=6"], 6),
        (["train.steps=0", "train.epochs=5"], 10),
        (["data.pooled=true", "train.steps=6"], 18),
    ):
        config = experiment(*settings)
        assert work_of(*plan_and_stream(config, 2, 1)) == [
            dict.fromkeys(work_of(*plan_and_stream(config, 2, 1))[0], expected)
        ]
    slow = replace(experiment("train.steps=6"), participation=half)
    assert set(work_of(*plan_and_stream(slow, 2, 1))[0].values()) == {3}


@pytest.mark.parametrize(
    ("clients", "drawn", "ranks", "settings", "expected"),
    [
        (20, 5, 6, [], [1, 2, 3, 4, 5]),
        (20, 5, 6, ["placement.clients=fixed"], []),
        (5, 2, 6, [], []),  # a client a rank, as on real edges
        (20, None, 6, [], []),  # all are online, and as long
        (20, 5, 2, [], []),  # one rank has them all
        (20, 5, 1, ["placement.clients=dealt"], []),
        (5, 2, 6, ["placement.clients=dealt"], [1, 2, 3, 4, 5]),
        (20, 5, 6, ["fault_tolerance=true"], []),
        (20, None, 6, ["participation.stragglers=0.5"], [1, 2, 3, 4, 5]),
    ],
)
def test_auto_deals_clients_where_it_helps(clients, drawn, ranks, settings, expected):
    config = experiment(f"data.synthetic.clients={clients}", *settings)
    plan, stream = plan_and_stream(config, drawn)
    assert dealing(plan, stream, assign_clients(clients, ranks)).players == expected


def test_clients_that_belong_to_a_rank_that_may_be_lost_are_not_dealt():
    with pytest.raises(InputError, match=r"placement\.clients is dealt, but with fault_tolerance=true"):
        experiment("placement.clients=dealt", "fault_tolerance=true")


# -- what moves --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shelf", [True, False])
def test_a_client_moves_with_all_that_there_is_of_it(shelf, monkeypatch):
    """Rank 1's two clients have been online; in round 2 both are again, and one has to go to rank 2."""
    config = tiny.experiment({"train.steps": 1, "evaluation.gallery": ["all"]}, "fedstil")
    schedule = schedule_of(1, 4, 3, 1, 2, None, 1)
    dealt = Dealing([{}, {0: 1, 1: 1}], [1, 2], on_demand=True)
    asked, parcels = [], []

    class Watched(played.Given):
        def task(self, client, task):
            asked.append((client, task))
            return super().task(client, task)

    def of_rank(rank):
        rank_of = {0: 1, 1: 1, 2: 2, 3: 2}
        mine = [client for client, having in rank_of.items() if having == rank]
        start, plan = tiny.network(), played.plan_of(config, schedule)
        learners = Roster(mine, lambda client: Learner(client, config, played.FOUR[client], start))
        schema = message_schema(plan.experiment, plan.method, 4, start)
        f = replace(
            connect(plan, schema, learners, InProcessExchange(), OneByOne(nowhere)), shelf=Shelf() if shelf else None
        )
        f.exchange.rank_of = rank_of
        resources = SharedResources("", Watched(played.FOUR), None, None)
        resources.tasks |= {client: played.FOUR[client] for client in mine}
        return f, moving.Moving(SimpleNamespace(rank=rank), dealt, resources, learners)

    f, here = of_rank(1)
    g, there = of_rank(2)
    played_once = played.federation(config, played.FOUR, replace(schedule, total=1), in_files=shelf)
    run_rounds(played_once, NoCheckpoints())
    for client in (0, 1):
        f.restore_client(client, played_once.client_state(client))
        f.clients[client].learner.views.take(played_once.clients[client].learner.views.kept(), "cpu")
    f.initial_model.met = g.initial_model.met = {0, 1}
    f.put_away()
    before = content(f.client_state(1))
    views = f.clients[1].learner.views.kept()

    left = weakref.ref(f.clients[1].learner)
    monkeypatch.setattr(moving, "hand_over", lambda _, leaving, coming: parcels.extend(leaving) or [])
    with without_garbage_collection():
        moving.take_places(f, here, 2)
        assert left() is None
    monkeypatch.setattr(moving, "hand_over", lambda *_: [np.frombuffer(parcel, np.uint8) for _, parcel in parcels])
    moving.take_places(g, there, 2)

    assert [rank for rank, _ in parcels] == [2]
    assert list(f.clients) == list(here.learners) == [0]
    assert list(g.clients) == list(there.learners) == [1, 2, 3]
    assert f.exchange.rank_of == g.exchange.rank_of == {0: 1, 1: 2, 2: 2, 3: 2}
    assert content(g.client_state(1)) == before
    assert [(task, split, made.tolist()) for task, split, made in g.clients[1].learner.views.kept()] == [
        (task, split, made.tolist()) for task, split, made in views
    ]
    for task, images in made_of(there.resources.tasks[1]).items():
        assert np.array_equal(images.gallery.pixels, played.FOUR[1][task].gallery.pixels)
    assert len(made_of(there.resources.tasks[1])) == 3
    assert not asked
    assert (1 in f.found, 1 in f.changed, 1 in here.resources.tasks) == (False, False, False)
    assert (1 in g.found, 1 in g.changed) == (True, True)
    assert not shelf or {key[0] for key in f.shelf} == {0}


def test_all_clients_galleries_are_joined_in_client_order_whoever_has_them():
    """This rank has clients 0 and 3, the next 1; what ranks share comes rank by rank."""

    def gallery(client):
        labels = np.array([[client, 7], [client, 8]])
        return Gallery(torch.tensor([[client, 0.1], [client, 0.2]]), labels)

    others = iter([gallery(1).features.numpy(), gallery(1).labels, np.array([1, 1])])
    joined = gather(lambda rows: np.concatenate([rows, next(others)]), {0: gallery(0), 3: gallery(3)}, 2)
    assert joined.owners.tolist() == [0, 0, 1, 1, 3, 3]
    assert joined.gallery.labels.tolist() == [[client, camera] for client in (0, 1, 3) for camera in (7, 8)]
    assert torch.equal(joined.gallery.features, torch.cat([gallery(client).features for client in (0, 1, 3)]))


@contextmanager
def without_garbage_collection():
    gc.disable()
    yield
    gc.enable()


def content(state):
    """As plain values that can be compared."""
    tensors, plain = flatten(state)
    return {name: tensor.tolist() for name, tensor in tensors.items()}, json.dumps(plain)
