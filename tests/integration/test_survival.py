"""Ranks die in the midst of a run that is to go on without them (fault_tolerance: true, mpirun --with-ft ulfm)."""

import json
import platform
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest

from support import SMALL, TINY
from support.launch import SCRIPTS, ULFM, alone, lines_of, mpirun
from support.results import different, equal, lines, results

HOST = platform.node()
CLIENTS, ROUNDS = 4, 4
USUAL = [
    SMALL,
    f"data.synthetic.clients={CLIENTS}",
    "rounds.per_task=2",
    "rounds.evaluate_every=1",
    "fault_tolerance=true",
]
MORE = {
    "usual": ["lost_clients=offline"],
    "everyone": [
        *("lost_clients=offline", "method.name=fedweit", "evaluation.gallery=all", "prototypes.exchange=true"),
    ],
    "waves": ["placement.away=files", "placement.at_once=2"],
}


class Cast(NamedTuple):
    """A job whose ranks, but for the server, all die, one experiment after the other; rank 0 is left to play all clients."""

    ranks: int
    offline: dict[str, list]
    """Experiment -> [rank, round, moment] of its deaths; first each is played undisturbed, as `whole_<name>`."""
    adopted: dict[str, list]
    """The same, after those."""

    @property
    def deaths(self):
        return self.offline | self.adopted


SHORT = Cast(
    ranks=5,
    offline={"usual": [[4, 3, "up"]]},
    adopted={"training": [[3, 3, "training"]], "two": [[1, 4, "gather"], [2, 4, "gather"]]},
)
LONG = Cast(
    ranks=7,  # also some that have nothing to do at first
    offline={"usual": [[4, 3, "up"]], "everyone": [[2, 3, "down"]]},
    adopted={
        "training": [[3, 3, "training"]],
        "two": [[1, 3, "gather"], [6, 3, "gather"]],
        "last": [[5, 4, "checkpoint"]],
    },
)


class Play(NamedTuple):
    cast: Cast
    folder: Path
    output: str


@pytest.fixture(scope="module")
def ulfm():
    """Skips where ranks cannot outlive others."""
    code = "from fedstil_mpi.comm.start import start\nwith start() as world: print(world.ulfm, flush=True)"
    done = mpirun(1, ["-c", code], options=ULFM)
    if done.stdout.strip() != "True":
        pytest.skip("this MPI lacks User Level Failure Mitigation (Open MPI 5 and mpi4py 4.1 have it)")


def play(ranks, folder, deaths, **rest):
    """deaths: by experiment; rest: for all, see die.py."""
    trials = {
        name: {"deaths": of, "overrides": [*USUAL, *MORE.get(name.removeprefix("whole_"), [])], **rest}
        for name, of in deaths.items()
    }
    done = mpirun(ranks, [SCRIPTS / "die.py", folder, TINY, json.dumps(trials)], timeout=300, options=ULFM)
    return done


@pytest.fixture(scope="module", params=[SHORT, pytest.param(LONG, marks=pytest.mark.long)], ids=["short", "long"])
def played(request, ulfm, tmp_path_factory):
    cast, folder = request.param, tmp_path_factory.mktemp("died")
    done = play(cast.ranks, folder, {f"whole_{name}": [] for name in cast.offline} | cast.deaths)
    assert done.returncode == 0, done.stderr
    return Play(cast, folder, done.stdout)


def events(folder):
    """As stored, and as the lines of the rounds have them."""
    with h5py.File(folder / "results.h5") as file:
        stored = json.loads(file.attrs["events"])
    of_rounds = lines(folder)
    assert [line["round"] for line in of_rounds] == list(range(1, ROUNDS + 1))
    assert all(event["round"] == line["round"] for line in of_rounds for event in line["events"])
    return stored, [event for line in of_rounds for event in line["events"]]


# -- adopted -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_adopted_clients_go_on_as_if_nobody_had_died(played):
    for name in played.cast.adopted:
        assert not different(*(results(played.folder / run) for run in (name, "whole_usual"))), name
        assert (played.folder / name / "complete").exists()
        assert not (played.folder / name / "checkpoints").exists()
    assert played.output.count("rank-1") == 2 * len(played.cast.offline) + len(played.cast.adopted)


@pytest.mark.slow
@pytest.mark.long
def test_so_do_they_where_rounds_go_in_waves(ulfm, tmp_path):
    """Of the four clients two at a time have their models in memory."""
    done = play(3, tmp_path, {"whole_waves": [], "waves": [[2, 3, "up"]]})
    assert done.returncode == 0, done.stderr
    assert not different(*(results(tmp_path / run) for run in ("waves", "whole_waves")))
    check_adopted(events(tmp_path / "waves")[0], [[2, 3, "up"]], {0, 1}, done.stdout)


@pytest.mark.slow
def test_lost_and_adopting_ranks_are_reported(played):
    living = set(range(played.cast.ranks))
    for name, deaths in played.cast.deaths.items():
        living.difference_update(rank for rank, _, _ in deaths)
        if name in played.cast.adopted:
            stored, printed = events(played.folder / name)
            assert stored == printed
            check_adopted(stored, deaths, living, played.output)
    assert living == {0}
    assert stored[-1]["adopted_by"] == [0] * len(stored[-1]["clients"])


def check_adopted(stored, deaths, living, output):
    assert [[event["rank"], event["round"]] for event in stored] == [[rank, round] for rank, round, _ in deaths]
    for event in stored:
        assert event["event"] == "rank lost"
        assert event["host"] == HOST
        assert len(event["clients"]) == len(event["adopted_by"]) > 0
        assert living.issuperset(event["adopted_by"])
        line = (
            f"rank {event['rank']} on {HOST} was lost in round {event['round']}; client {event['clients'][0]} continues"
        )
        assert output.count(line) == 2  # when it happened, and at the end


@pytest.mark.slow
def test_the_deaths_were_real(played):
    for name, deaths in played.cast.deaths.items():
        times = {what: (played.folder / "times" / f"{name}.{what}").read_text().split() for what in ("died", "began")}
        assert len(times["died"]) == len(deaths)
        assert len(times["began"]) == 2  # in the beginning, and once more
        assert float(times["began"][1]) - float(times["died"][0]) < 20


# -- offline -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_earlier_rounds_of_a_run_that_lost_clients_are_untouched(played):
    for name, ((_, round, _),) in played.cast.offline.items():
        check_untouched(name, *(results(played.folder / run) for run in (f"whole_{name}", name)), before=round - 1)


def check_untouched(name, whole, found, before):
    assert equal(found["training/reports"][:before], whole["training/reports"][:before])
    views = [view for view in ("local", "served", "local_task_free", "served_task_free") if f"{view}/metrics" in whole]
    assert len(views) == (4 if name == "everyone" else 2)
    for view in views:
        known = before - view.startswith("served")  # the exchange after the last round before took place after the loss
        assert equal(found[f"{view}/metrics"][:known], whole[f"{view}/metrics"][:known])
    entries, expected = (run["ledger"][run["ledger"]["round"] <= before] for run in (found, whole))
    assert np.array_equal(entries, expected)


@pytest.mark.slow
def test_lost_clients_take_no_part_any_more(played):
    for name, ((rank, round, _),) in played.cast.offline.items():
        check_absent(played, name, rank, round)


def check_absent(played, name, rank, round):
    found = results(played.folder / name)
    stored, printed = events(played.folder / name)
    assert stored == printed
    (event,) = stored
    assert (event["rank"], event["round"], event["adopted_by"]) == (rank, round, None)
    (client,) = event["clients"]
    left, first = np.arange(CLIENTS) != client, round - 1
    assert np.array_equal(found["participation/online"][first:], np.tile(left, (ROUNDS - first, 1)))
    assert found["participation/online"][:first].all()
    assert np.array_equal(np.isfinite(found["training/reports"][first:, :, 2]), np.tile(left, (ROUNDS - first, 1)))
    for view in ("local", "served"):
        last = found[f"{view}/metrics"][-1]
        assert np.array_equal(np.isfinite(last).all(axis=(1, 2, 3)), left)
        assert np.isnan(last[client]).all()
        for measure in ("rank1", "map", "forgetting"):
            assert np.array_equal(np.isfinite(found[f"{view}/final/{measure}"]).all(axis=1), left)
        stages = np.isfinite(found[f"{view}/accuracy_matrix/rank1"][client, 0]).any(axis=1)
        assert stages.tolist() == [True, False]  # what it was worth at the task that it finished is known
    later = found["ledger"][found["ledger"]["round"] > first]
    assert set(later["client"].tolist()) == set(np.flatnonzero(left).tolist())
    line = f"rank {rank} on {HOST} was lost in round {round}; client {client} is absent from then on"
    assert played.output.count(line) == 2


# -- the end of a job --------------------------------------------------------------------------------------------------


def resume(folder, name):
    """On a single rank."""
    done = alone("-m", "fedstil_mpi.run", TINY, *USUAL, f"output={folder}", f"name={name}", "--resume")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_loss_of_the_server_ends_the_job(played, tmp_path):
    done = play(2, tmp_path, {"server": [[0, 3, "down"]]})
    assert done.returncode == 1
    assert lines_of(done.stderr) == [f"fedstil_mpi: rank 0 on {HOST}, the server, was lost; go on with --resume"]
    assert "Traceback" not in done.stderr
    resume(tmp_path, "server")
    assert not different(results(tmp_path / "server"), results(played.folder / "whole_usual"))


@pytest.mark.slow
@pytest.mark.long
def test_a_pause_after_losses_has_its_code(ulfm, tmp_path):
    """The second rank dies while the survivors of the first take up the checkpoint."""
    done = play(3, tmp_path, {"pause": [[1, 2, "boundary"], [2, 0, "restoring"]]}, pause=3)
    assert done.returncode == 75, done.stderr
    (line,) = lines_of(done.stderr)
    assert line.startswith(
        "fedstil_mpi: asked to stop, and stopped in round 3; go on with --resume. Expected: exit code 75"
    )
    assert len((tmp_path / "times" / "pause.died").read_text().split()) == 2
    assert (tmp_path / "pause" / "checkpoints" / "00002" / "learning" / "checkpoint.json").exists()
    assert not (tmp_path / "pause" / "complete").exists()
    resume(tmp_path, "pause")
    stored, _ = events(tmp_path / "pause")
    assert [event["event"] for event in stored] == ["rank lost", "rank lost", "resumed"]
    assert [event.get("rank") for event in stored] == [1, 2, None]


@pytest.mark.slow
@pytest.mark.long
def test_a_round_that_kills_every_rank_that_plays_it_ends_the_job(ulfm, tmp_path):
    script = [SCRIPTS / "fail_in_training.py", "exception", tmp_path, TINY, SMALL]
    done = mpirun(4, [*script, f"output={tmp_path}", "fault_tolerance=true"], timeout=300, options=ULFM)
    assert done.returncode == 1
    *failures, end = lines_of(done.stderr)
    assert len(failures) == 3
    assert all(" failed (client 2, task 1, round 2): ZeroDivisionError" in line for line in failures)
    assert "was lost in round 2; ranks were lost in this round 3 times; go on with --resume" in end


def test_a_job_that_cannot_outlive_its_ranks_is_refused(tmp_path):
    done = mpirun(2, ["-m", "fedstil_mpi.run", TINY, f"output={tmp_path}", "fault_tolerance=true"])
    assert done.returncode == 2
    (line,) = lines_of(done.stderr)
    assert "--with-ft ulfm" in line
    assert not list(tmp_path.iterdir())
