"""Clients that join late, are away, or fall behind: who is there when, and that every method takes it."""

from collections import Counter
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from rich.console import Console

from fedstil_mpi import methods, plan, report
from fedstil_mpi.client.learner import Learner
from fedstil_mpi.client.local_training import shortened
from fedstil_mpi.comm.ledger import Ledger
from fedstil_mpi.config import loading
from fedstil_mpi.config.schema import Participation, Train
from fedstil_mpi.data.sources import open_stream
from fedstil_mpi.federation.observer import Observer
from fedstil_mpi.federation.participation import Attendance
from fedstil_mpi.federation.plan import make_plan
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.federation.state import nowhere
from fedstil_mpi.federation.trainer import OneByOne
from fedstil_mpi.models.network import network_state
from fedstil_mpi.results.reading import runs
from fedstil_mpi.results.reading.measures import stage_by_round
from fedstil_mpi.results.writing import summary
from fedstil_mpi.util import seeding
from fedstil_mpi.util.errors import InputError
from support import TINY, made_runs, played, tiny
from support.cases import EPOCHS, STRANGER, STREAMS


def attendance(clients=10, total=12, seed=1, lost=None, **settings):
    return Attendance(seed, clients, total, Participation(**settings), lost or {})


def schedule(clients=4, total=6, seed=3, drawn=None, lost=None, **settings):
    """Three tasks of one round, evaluated after every second round."""
    return Schedule(seed, clients, 3, 1, total, drawn or clients, 2, Participation(**settings), lost or {})


# -- who is there ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drawn", [1, 3, 7])
def test_without_absences_everything_is_as_if_there_were_no_such_thing(drawn):
    full = schedule(clients=7, total=20, drawn=drawn)
    for round, online in full.rounds():
        draw = seeding.generator(3, "online", round).choice(7, drawn, replace=False)
        assert online == sorted(draw.tolist())
    assert np.nansum(full.efforts()) == 20 * drawn


@pytest.mark.parametrize("late", [0.0, 0.1, 0.25, 0.5, 1.0])
def test_so_many_join_late(late):
    for seed in range(5):
        joins = attendance(clients=40, seed=seed, late=late, late_until=4).joins
        assert sum(first > 1 for first in joins) == 40 * late
        assert set(joins) <= {1, 2, 3, 4}


def test_late_clients_and_their_rounds_are_drawn_evenly():
    joins = np.array([attendance(clients=5, seed=seed, late=0.4, late_until=4).joins for seed in range(3000)])
    # Binomial with n = 3000 and p = 2/5 by client: mean 1200, standard deviation 27; and 6000, 1/3 by round: 2000, 37.
    assert np.abs((joins > 1).sum(axis=0) - 1200).max() < 4 * 27
    assert all(abs((joins == round).sum() - 2000) < 4 * 37 for round in (2, 3, 4))


@pytest.mark.parametrize(("total", "latest"), [(1, 2), (3, 2), (12, 6), (13, 6)])
def test_late_means_in_the_first_half(total, latest):
    joins = attendance(clients=200, total=total, late=1.0).joins
    assert set(joins) == set(range(2, latest + 1))


def test_a_late_client_stays():
    late = attendance(late=0.5, late_until=6)
    for round in range(1, 13):
        assert late.present(round) == [client for client in range(10) if late.joins[client] <= round]


def test_dropouts_by_the_law_of_large_numbers():
    rounds = [attendance(clients=50, dropout=0.3).present(round) for round in range(1, 401)]
    # Binomial with p = 0.7: of 20000 mean 14000, standard deviation 65; of a client's 400 280 and 9.2.
    assert abs(sum(map(len, rounds)) - 14000) < 4 * 65
    by_client = Counter(client for there in rounds for client in there)
    assert all(abs(by_client[client] - 280) < 4 * 9.2 for client in range(50))
    assert {tuple(there) for there in rounds} == {tuple(sorted(set(there))) for there in rounds}


def test_stragglers_by_the_law_of_large_numbers():
    behind = attendance(stragglers=0.2, straggler_effort=0.25)
    efforts = Counter(behind.effort(client, round) for client in range(10) for round in range(2000))
    assert efforts.keys() == {0.25, 1.0}
    assert abs(efforts[0.25] - 4000) < 4 * 57  # binomial with n = 20000 and p = 0.2


def test_certain_and_impossible():
    assert attendance(stragglers=1.0, straggler_effort=0.5).effort(3, 7) == 0.5
    assert attendance(stragglers=0.0, straggler_effort=0.5).effort(3, 7) == 1.0
    assert attendance(dropout=0.0).present(5) == list(range(10))


def test_away_is_from_the_first_round_to_the_last():
    away = attendance(clients=3, away=[[0, 2, 3], [1, 3, 3], [0, 6, 99]])
    there = {1: [0, 1, 2], 2: [1, 2], 3: [2], 4: [0, 1, 2], 5: [0, 1, 2], 6: [1, 2], 12: [1, 2]}
    assert {round: away.present(round) for round in there} == there


@pytest.mark.parametrize(
    "settings",
    [
        {"dropout": 1.0},
        {"late": 1.0, "late_until": 1000},
        {"away": [[client, 1, 99] for client in range(10)]},
        {"late": 0.5, "dropout": 0.9, "away": [[0, 1, 50], [9, 20, 99]]},
    ],
)
def test_somebody_is_always_there(settings):
    rounds = [attendance(total=60, **settings).present(round) for round in range(1, 61)]
    assert min(map(len, rounds)) == 1
    assert len({there[0] for there in rounds if len(there) == 1}) > 3  # drawn at random, not always the same


def test_a_client_drawn_alone_has_joined_if_any_has():
    late = attendance(clients=6, total=40, late=0.5, late_until=20, dropout=1.0)
    assert all(late.joins[late.present(round)[0]] <= round for round in range(1, 41))


# -- clients that are lost ---------------------------------------------------------------------------------------------

SETTINGS = [{}, {"dropout": 1.0}, {"late": 1.0, "late_until": 30}, {"late": 0.5, "dropout": 0.5, "stragglers": 0.5}]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("drawn", [5, 2])
def test_what_was_before_a_loss_stays_as_it_was(settings, drawn):
    for seed in range(5):
        whole, less = (schedule(5, 30, seed, drawn, lost, **settings) for lost in ({}, {2: 9, 4: 20}))
        assert [whole.online(round) for round in range(1, 9)] == [less.online(round) for round in range(1, 9)]
        rounds = dict(less.rounds())
        assert not any(2 in rounds[round] for round in range(9, 31))
        assert not any(4 in rounds[round] for round in range(20, 31))
        assert all(rounds.values())


def test_only_those_who_are_lost_are_missing():
    less = attendance(clients=20, dropout=0.3, lost={3: 5, 8: 1})
    whole = replace(less, lost={})
    for round in range(1, 13):
        gone = {3, 8} if round >= 5 else {8}
        assert less.present(round) == [client for client in whole.present(round) if client not in gone]


# -- the schedule ------------------------------------------------------------------------------------------------------

MIXED = {"late": 0.5, "late_until": 3, "dropout": 0.3, "stragglers": 0.4, "straggler_effort": 0.5}


def test_as_many_as_are_wanted_are_drawn_from_those_who_are_there():
    plan = schedule(clients=10, total=200, drawn=3, dropout=0.7)
    for round, online in plan.rounds():
        there = plan.attendance.present(round)
        assert set(online) <= set(there)
        assert len(online) == min(3, len(there))
        assert online == sorted(set(online))
    assert {len(online) for _, online in plan.rounds()} == {1, 2, 3}


def test_efforts_are_of_those_who_take_part():
    plan = schedule(clients=10, total=40, drawn=6, **MIXED)
    efforts = plan.efforts()
    assert [np.flatnonzero(~np.isnan(row)).tolist() for row in efforts] == [online for _, online in plan.rounds()]
    assert {effort for effort in efforts.flat if not np.isnan(effort)} == {0.5, 1.0}


def test_the_same_whoever_asks_and_in_whatever_order():
    one, other = (schedule(clients=9, total=30, drawn=5, **MIXED) for _ in range(2))
    for round in reversed(range(1, 31)):
        for client in reversed(range(9)):
            other.attendance.effort(client, round)
        assert one.online(round) == other.online(round)
    assert np.array_equal(one.efforts(), other.efforts(), equal_nan=True)
    assert not np.array_equal(one.efforts(), replace(one, seed=4).efforts(), equal_nan=True)


def planned(*overrides):
    source = loading.read(TINY, list(overrides))
    method = methods.load(loading.resolve(source).method.name)
    experiment = loading.resolve(source, method.Options, method.PRESETS)
    return make_plan(experiment, method, open_stream(experiment.data, experiment.seed))


def test_the_same_for_every_method():
    overrides = ["rounds.total=12", *(f"participation.{key}={value}" for key, value in MIXED.items())]
    efforts = [planned(*overrides, f"method.name={name}").schedule.efforts() for name in methods.names()]
    assert all(np.array_equal(of_method, efforts[0], equal_nan=True) for of_method in efforts)
    assert np.isnan(efforts[0]).any()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("late=1.5", "participation.late = 1.5; expected between 0 and 1"),
        ("late_until=1", "participation.late_until = 1; expected between 2 and 10000000"),
        ("dropout=-0.1", "participation.dropout = -0.1; expected between 0 and 1"),
        ("dropout=often", "config key participation.dropout: Value 'often'"),
        ("stragglers=2", "participation.stragglers = 2.0; expected between 0 and 1"),
        ("straggler_effort=.nan", "participation.straggler_effort = nan; expected between 0 and 1"),
        (
            "stragler_effort=1",
            "unknown config key participation.stragler_effort; did you mean participation.straggler_",
        ),
        ("away=5", "config key participation.away"),
        (
            "away=[1,2,3]",
            "participation.away has 1; expected [client, first round, last round] with a client from 0 to 2",
        ),
        ("away=[[one,2,3]]", "participation.away has ['one', 2, 3]; expected "),
        ("away=[[0,1.5,2]]", "participation.away has [0, 1.5, 2]; expected "),
        ("away=[all]", "participation.away has 'all'; expected "),
        (
            "away=[[0,1]]",
            "participation.away has [0, 1]; expected [client, first round, last round] with a client from 0",
        ),
        ("away=[[0,1,2],[3,1,2]]", "participation.away has [3, 1, 2]; expected [client, first round, last round] with"),
        ("away=[[-1,1,2]]", "participation.away has [-1, 1, 2]; expected "),
        ("away=[[0,0,2]]", "participation.away has [0, 0, 2]; expected "),
        ("away=[[0,3,2]]", "participation.away has [0, 3, 2]; expected "),
    ],
)
def test_mistakes_are_one_line(override, message):
    with pytest.raises(InputError) as caught:
        planned(f"participation.{override}")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


# -- stragglers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "effort", "done"), [(12, 0.5, 6), (12, 0.3, 4), (12, 0.0, 1), (1, 0.1, 1), (5, 1.0, 5), (0, 0.5, 0)]
)
def test_a_part_of_the_training_but_never_nothing(steps, effort, done):
    assert shortened(Train(steps=steps, epochs=0), effort).steps == done
    assert shortened(Train(steps=0, epochs=steps), effort).epochs == done


def trained(effort, **settings):
    """A learner after two rounds on 12 images in batches of 8, so that a pass is two steps."""
    config = tiny.experiment({"train.batch": 8, "memory.size": 0} | {"train." + k: v for k, v in settings.items()})
    side = Learner(0, config, [tiny.task(1, 2, 3)], tiny.network())
    for number in (1, 2):
        side.begin_round()
        side.train(number, lambda *given: None, None, effort)
    return side


@pytest.mark.parametrize("refresh", ["round", "epoch"])
def test_a_straggler_trains_as_one_who_was_asked_for_less(refresh):
    for kind, other in (("steps", "epochs"), ("epochs", "steps")):
        half, less = (trained(e, **{kind: n, other: 0, "refresh": refresh}) for e, n in ((0.5, 6), (1.0, 3)))
        assert half.fingerprint() == less.fingerprint()
        assert half.forward_counts == less.forward_counts
        assert half.samples == less.samples


def test_steps_and_images_by_hand():
    assert trained(1.0, steps=6).forward_counts["train"] == 2 * 3 * 12
    half = trained(0.5, steps=6)  # three steps: 8 + 4 + 8 images
    assert half.forward_counts["train"] == 2 * 20
    assert half.samples == 20
    assert len(half.training.meter.losses) == 3
    epochs = trained(0.6, steps=0, epochs=4)  # 2.4 passes: two
    assert epochs.forward_counts["train"] == 2 * 2 * 12
    assert len(epochs.training.epochs) == 2


OF_TRAINING = {
    "steps": {"train.steps": 7},
    "epochs": {"train.steps": 0, "train.epochs": 5},
    "each epoch a view": {"train.refresh": "epoch", "train.steps": 7},
    "shuffled into one": {"memory.share": None, **EPOCHS},
}


@pytest.mark.parametrize("name", OF_TRAINING)
def test_forward_passes_of_stragglers_are_as_predicted(name):
    settings = {"rounds.per_task": 1, "memory.size": 7, "train.batch": 4} | OF_TRAINING[name]
    plan, config = schedule(3, 5, **MIXED), tiny.experiment(settings)
    assert (plan.efforts() < 1).any()
    real, counted = (played.learners(engine(config, played.THREE, plan)) for engine in (played.play, played.count))
    assert [learner.forward_counts for learner in counted] == [learner.forward_counts for learner in real]


# -- every method ------------------------------------------------------------------------------------------------------

PEOPLE = [*STREAMS, STRANGER]
SCENARIOS = {
    "mixed": schedule(**MIXED),
    # Client 1 never joins, client 2 in the last round; clients 0, 0 and 3 are alone in the first three.
    "few": schedule(
        late=0.25,
        late_until=10**9,
        away=[[2, 1, 5], [3, 1, 2], [0, 3, 3]],
        stragglers=0.5,
        straggler_effort=0.0,
    ),
    "one at a time": schedule(dropout=1.0),
    "alone for a while": schedule(away=[[0, 2, 3], [1, 2, 3], [3, 2, 3]]),
}


def test_the_scenarios_are_what_they_are_called():
    mixed = SCENARIOS["mixed"]
    assert sorted(mixed.attendance.joins) == [1, 1, 2, 3]
    assert any(len(online) < 4 for _, online in mixed.rounds(done=3))  # after all have joined
    online = {name: [online for _, online in plan.rounds()] for name, plan in SCENARIOS.items()}
    assert online["few"] == [[0], [0], [3], [0, 3], [0, 3], [0, 2, 3]]
    assert [len(those) for those in online["one at a time"]] == [1] * 6
    assert [len(those) for those in online["alone for a while"]] == [4, 1, 1, 4, 4, 4]
    assert all((SCENARIOS[name].efforts() < 1).any() for name in ("mixed", "few"))


class Kept(Observer):
    """Keeps the metrics of the last evaluation."""

    def evaluation(self, round, view, metrics):
        self.metrics = metrics


@pytest.mark.parametrize(
    "scenario", ["mixed", "few", *(pytest.param(name, marks=pytest.mark.long) for name in list(SCENARIOS)[2:])]
)
@pytest.mark.parametrize("method", methods.names())
def test_every_method_takes_it(method, scenario):
    plan, start, kept = SCENARIOS[scenario], tiny.network(), Kept()
    settings = {"rounds.per_task": 1, "prototypes.exchange": scenario == "mixed"}
    config = tiny.experiment({"train.steps": 4, "train.batch": 8, "memory.size": 6} | settings, method)
    f, counted = played.play(config, PEOPLE, plan, start, kept), played.count(config, PEOPLE, plan)
    ledger = f.exchange.ledger
    assert ledger.difference(counted.exchange.ledger) == []
    assert all(torch.equal(*pair) for pair in zip(state(start), state(tiny.network()), strict=True))
    visits = (~np.isnan(plan.efforts())).sum(axis=0)
    for client, side in f.clients.items():
        learner = side.learner
        first = [round for round, online in plan.rounds() if client in online][:1]
        for kind in ("model", "counters"):
            booked = [entry.round for entry in ledger.entries if (entry.client, entry.kind) == (client, kind)]
            assert booked == first
        assert learner.forward_counts == counted.clients[client].learner.forward_counts
        assert all(torch.isfinite(tensor).all() for tensor in learner.tail.state_dict().values())
        assert torch.equal(learner.tail.neck.weight, start.tail.neck.weight)
        assert torch.equal(learner.tail.neck.bias, start.tail.neck.bias)
        assert learner.draws == visits[client]
        assert bool(learner.fingerprint()) == bool(learner.forward_counts) == bool(first)
        seen = min(learner.draws, 3)
        found = kept.metrics[client].swapaxes(0, 1)  # tasks first
        assert ((found[:seen] >= 0) & (found[:seen] <= 1)).all()
        assert np.isnan(found[seen:]).all()


def state(network):
    return network_state(network).values()


# -- what a run leaves -------------------------------------------------------------------------------------------------

NAN = np.nan
# Client 0 is there in both rounds, client 1 in the last, client 2 never. One round a task.
SERVED = [[[0.5, NAN], [NAN, NAN], [NAN, NAN]], [[0.4, 0.8], [0.7, NAN], [NAN, NAN]]]
COMING = {"away": [[1, 1, 1], [2, 1, 2]], "stragglers": 1.0, "straggler_effort": 0.25}


@pytest.fixture
def run(tmp_path):
    return made_runs.write(tmp_path / "run", SERVED, participation=COMING)


def test_who_took_part_is_recorded(run):
    with h5py.File(run / "results.h5") as file:
        online, effort = file["participation/online"][()], file["participation/effort"][()]
    assert online.dtype == bool
    assert online.tolist() == [[True, False, False], [True, True, False]]
    assert effort == pytest.approx(np.array([[0.25, NAN, NAN], [0.25, 0.25, NAN]]), nan_ok=True)
    assert np.array_equal(runs.read(run).online, online)


def test_who_never_came_has_no_results(run):
    found = runs.read(run)
    final = found.of("served").final
    assert final["rank1"] == pytest.approx([60, 70, NAN], nan_ok=True)
    assert final["forgetting"] == pytest.approx([10, NAN, NAN], nan_ok=True)  # client 1 has one task, nothing is old
    assert stage_by_round(found).tolist() == [[0, -1, -1], [1, 0, -1]]


def test_reports_show_who_came(run):
    text = report.write(report.load([run]), run / "report").read_text()
    rows = {row["variant"]: row for row in made_runs.csv_rows(run / "report" / "table.csv")}
    assert float(rows["fedstil"]["served_rank1_mean"]) == pytest.approx(65)
    assert "nan" not in text
    assert (run / "report" / "per_task.png").is_file()


def test_reports_warn_of_other_participation(run):
    made_runs.write(run.parent / "full", SERVED, method="fedavg")
    text = report.text(report.load([run.parent], None), [])
    assert "**Warning: not comparable.** participation.straggler_effort is not the same" in text


class Recorded:
    """A record of a federation of which client 1 was never there."""

    def __init__(self, plan: Schedule):
        self.schedule, self.ledger, self.headline = plan, Ledger(), 0

    def final(self, view: str) -> dict[str, np.ndarray]:
        shown = dict.fromkeys(("rank1", "rank5", "map", "forgetting"), np.array([[50.0], [NAN]]))
        return shown | {"counted": np.array([[100.0], [NAN]])}


def test_tables_have_a_dash_for_who_never_came():
    console = Console(width=120)
    with console.capture() as captured:
        console.print(summary.results_table(Recorded(schedule(clients=2))))
    rows = [line.split() for line in captured.get().splitlines()]
    assert ["1", *["-"] * 5, "0.0", "0.0"] in rows
    assert ["mean", *["50.0"] * 5, "0.0", "0.0"] in rows


@pytest.mark.parametrize(
    ("settings", "clause"),
    [
        ({}, ""),
        ({"stragglers": 1.0, "straggler_effort": 1.0}, ""),
        ({"away": [[0, 1, 2]]}, "; clients take part 22 of 24 times"),
        ({"away": [[3, 1, 99]]}, "; clients take part 18 of 24 times, 1 of 4 clients never"),
        ({"stragglers": 1.0}, "; clients take part 24 of 24 times, 24 times with less training"),
        ({"drawn": 3}, "; clients take part 18 of 24 times"),
    ],
)
def test_the_headline_says_what_is_missing(settings, clause):
    assert summary.headline(tiny.experiment(), schedule(**settings)).endswith(f"seed 1{clause}")


def test_the_plan_says_it_too(capsys):
    plan.main([str(TINY), "model.num_classes=32", "participation.away=[[0,1,1]]"])
    assert "clients take part 5 of 6 times" in capsys.readouterr().out


# -- who is searched ---------------------------------------------------------------------------------------------------


class CountingSearches(OneByOne):
    def __init__(self):
        super().__init__(nowhere)
        self.searched = []

    def search(self, learner, tail_for):
        search = super().search(learner, tail_for)
        evaluate = search.evaluate
        search.evaluate = lambda *given: self.searched.append(learner.client) or evaluate(*given)
        return search


@pytest.mark.parametrize(("gallery", "again"), [("task", [2]), ("all", [0, 1, 2])])
def test_who_stayed_away_is_searched_again_only_among_images_of_others(gallery, again):
    """And would find what it has found."""
    config = tiny.experiment({"rounds.per_task": 1, "train.steps": 1, "evaluation.gallery": gallery})
    result = tiny.federation(config, [[tiny.task(n, 5), tiny.task(n, 6)] for n in range(3)])
    result.parts.trainer = trainer = CountingSearches()
    result.learn(1, [0, 1, 2])
    result.search()
    result.learn(2, [2])
    found = result.search()
    assert trainer.searched == [0, 1, 2, *again]
    result.parts.found.clear()
    np.testing.assert_array_equal(result.search(), found)
