"""Whole experiments under mpirun: the number of ranks changes nothing, and the run folder holds what it should."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest

from fedstil_mpi import methods
from fedstil_mpi.config import loading
from support import SMALL, TINY
from support.cases import FEDERATED, REFERENCED, working
from support.launch import alone, environment, find_mpirun, play
from support.results import different, equal, lines, results

RANKS = {"short": (1, 3), "long": (1, 3, 5)}
"""Of 3 clients: all on the server's rank; two and one; one each, and a rank with nothing to do (which test_survival.py has too)."""
CLIENTS, TASKS = 3, 2
BOTH = ("short", pytest.param("long", marks=[pytest.mark.slow, pytest.mark.long]))

METHODS = methods.names()
EPOCHS = ["train.steps=0", "train.epochs=2"]  # as the reference counts
LATE = ["rounds.clients_per_round=2", "prototypes.exchange=true"]
CODECS = {"up": "ternary_entropy", "down": "int4", "first_contact": "int8", "prototypes": "float16", "rows": "known"}
COMPRESSED = [f"compression.{part}={codec}" for part, codec in (CODECS | {"importance": "bfloat16"}).items()]
SELDOM = ["rounds.exchange_every=2", "rounds.total=5"]
MEMORY = dict.fromkeys(METHODS, 0) | {"fedstil": 30, "fedstil_atten": 30, "icarl": 30}


def of(method, *settings):
    return [SMALL, f"method.name={method}", *settings]


ALL = {
    **{name: of(name) for name in METHODS},
    **{f"{name}_late": of(name, *LATE) for name in METHODS},
    **{
        f"{name}_reference": of(name, "method.preset=reference_code", *EPOCHS, f"memory.size={MEMORY[name]}")
        for name in REFERENCED
    },
    **{f"{name}_compressed": of(name, *LATE, *working(name, *COMPRESSED)) for name in FEDERATED},
    **{f"{name}_seldom": of(name, *LATE, *SELDOM) for name in FEDERATED},
    "fedstil": ["method.name=fedstil"],  # with MobileNetV2
    "paper": [SMALL, "method.preset=paper"],
    "losses": [SMALL, "train.contrast=1", "train.triplet=1", "save_models=true"],
    "late": [
        *(SMALL, "warmup.steps=2", "rounds.clients_per_round=1", "rounds.total=5", "evaluation.tasks=all"),
        "data.synthetic.strangers=1",
    ],
    "elastic": [
        SMALL,
        "rounds.total=5",
        *(f"participation.{s}" for s in ("late=0.4", "dropout=0.3", "stragglers=0.5")),
    ],
    "late_reference": [SMALL, "method.preset=reference_code", "memory.size=30", *EPOCHS, "rounds.clients_per_round=2"],
    "all_late": of("fedweit", "evaluation.gallery=[all,task,client]", *LATE),
}
SHORT = [*(f"{name}_late" for name in METHODS), "single", "fedstil", "fedcurv_reference", "fedweit_reference"]
SHORT += ["fedstil_compressed", "fedweit_seldom", "losses", "late", "elastic"]
SHORT += ["late_reference", "all_late"]


class Play(NamedTuple):
    folder: Path
    output: str
    seconds: float


@pytest.fixture(scope="module", params=BOTH)
def names(request):
    return {"short": SHORT, "long": list(ALL)}[request.param]


@pytest.fixture(scope="module")
def plays(names, tmp_path_factory):
    """Number of ranks -> the experiments, run in one job."""
    found = {}
    for ranks in RANKS["short" if names is SHORT else "long"]:
        folder, began = tmp_path_factory.mktemp(f"ranks{ranks}"), time.monotonic()
        done = play(ranks, folder, {name: ALL[name] for name in names})
        found[ranks] = Play(folder, done.stdout, time.monotonic() - began)
    return found


def test_results_do_not_depend_on_the_number_of_ranks(plays, names):
    shown = {"final/fingerprints", "ledger", "local/metrics", "served/metrics", "training/reports"}
    for name in names:
        one, *others = (played.folder / name for played in plays.values())
        expected = results(one)
        assert shown <= set(expected)
        for other in others:
            assert different(results(other), expected) == [], other
            assert lines(other) == lines(one), other
            assert (other / "metrics.csv").read_text() == (one / "metrics.csv").read_text(), other


def test_ledger_is_as_predicted(plays, names):
    for played in plays.values():
        assert played.output.count("bytes: as predicted from the layouts") == len(names)


def test_experiments_are_not_all_the_same(plays, names):
    """Equal fingerprints of one experiment on different ranks say something only if those of others differ."""
    # The newest models of multi are those of single, EWC of the reference code holds nothing in a task's first round, and to
    # a client that learns alone it makes no difference who else is drawn.
    alike = ("multi", "multi_reference", "multi_late", "ewc_reference", "client_late", "all_late")
    own = [name for name in names if name not in alike]
    own = [name for name in own if name == "fedstil_late" or not name.endswith("_late")]
    models = [
        model for name in own for model in results(plays[1].folder / name)["final/fingerprints"].tolist() if model
    ]
    assert len(set(models)) == len(models)
    assert all(len(model) == 64 for model in models)


def test_late_joiners(plays):
    """Clients that were not drawn by a round have no metrics and no model; drawn ones have both from then on."""
    found = results(plays[1].folder / "late")
    reports = found["training/reports"][:, :, 0]
    assert (np.isfinite(reports).sum(axis=1) == 1).all()  # one client a round
    met = np.isfinite(reports).cumsum(axis=0) > 0
    assert not met[0].all()
    for view in ("local", "served"):
        assert found[f"{view}/rounds"].tolist() == [1, 2, 3, 4, 5]
        known = np.isfinite(found[f"{view}/metrics"]).all(axis=(2, 3, 4))
        assert np.array_equal(known, met)
    assert [bool(model) for model in found["final/fingerprints"]] == met[-1].tolist()
    welcomed = {(entry["client"]) for entry in found["ledger"] if entry["kind"] == b"model"}
    assert welcomed == set(np.flatnonzero(met[-1]).tolist())


def test_where_queries_are_searched_besides_changes_nothing(plays):
    """Not even before all are drawn: whose galleries are not there yet is searched by nobody."""
    usual, found = (results(plays[1].folder / name) for name in ("fedweit_late", "all_late"))
    assert usual["scope"].tolist() == [b"client", b"task"]
    assert found["scope"].tolist() == [b"all", b"task", b"client"]
    assert np.array_equal(found["final/fingerprints"], usual["final/fingerprints"])
    assert np.array_equal(found["ledger"], usual["ledger"])
    views = [f"{view}/metrics" for view in ("local", "served", "local_task_free", "served_task_free")]
    for view in views:
        assert equal(found[view][:, :, [2, 1]], usual[view])
        assert np.array_equal(np.isfinite(found[view][:, :, 0]), np.isfinite(found[view][:, :, 1]))
    assert not all(equal(found[view][:, :, 0], found[view][:, :, 2]) for view in views)


def test_learning_alone_sends_nothing_but_the_start_model(plays):
    ledger = results(plays[1].folder / "single")["ledger"]
    assert set(ledger["kind"]) == {b"model", b"counters"}
    assert set(ledger["round"]) == {1}
    assert set(ledger["direction"]) == {b"S2C"}


def test_relevance_is_a_mixing_matrix(plays):
    found = results(plays[1].folder / "fedstil")
    assert found["relevance/rounds"].tolist() == [2, 3]  # the last for the distribution after the last round
    assert found["relevance/matrices"].shape == (2, CLIENTS, CLIENTS)
    assert np.allclose(found["relevance/matrices"].sum(axis=2), 1)


# -- the run folder ----------------------------------------------------------------------------------------------------


def test_folder_holds_config_environment_and_results(plays, names):
    for ranks, name in ((ranks, name) for ranks in plays for name in names):
        folder = plays[ranks].folder / name
        files = {"complete", "config.yaml", "environment.json", "results.h5", "metrics.jsonl", "metrics.csv", "log.txt"}
        files |= {"models"} if name == "losses" else set()
        assert {p.name for p in folder.iterdir()} == files
        noted = json.loads((folder / "environment.json").read_text())
        placements = noted["placement"]
        assert [placement["rank"] for placement in placements] == list(range(ranks))
        assert sorted(client for placement in placements for client in placement["clients"]) == list(range(CLIENTS))
        assert {placement["threads"] for placement in placements} == {1}
        assert noted["packages"]["torch"]
        (session,) = noted["sessions"]
        assert session["ranks"] == ranks
        assert session["began"] <= session["ended"]
        assert re.search("MPI|MPICH", session["mpi"])


@pytest.mark.parametrize("name", ["fedstil", "late"])
def test_the_saved_config_is_the_whole_experiment(plays, name):
    for played in plays.values():
        asked = complete(TINY, [f"output={played.folder}", f"name={name}", *ALL[name]])
        assert complete(played.folder / name / "config.yaml", []) == asked


def complete(config, overrides):
    """The whole experiment that a config stands for."""
    source = loading.read(config, overrides)
    method = methods.load(loading.resolve(source).method.name)
    return asdict(loading.resolve(source, method.Options, method.PRESETS))


def test_one_line_a_round(plays, names):
    for name in names:
        check_lines(plays[1].folder / name)


def check_lines(folder):
    found = results(folder)
    assert [line["round"] for line in lines(folder)] == found["training/rounds"].tolist()
    ledger = found["ledger"]
    for line in lines(folder):
        of_round = ledger[ledger["round"] == line["round"]]
        for key, direction in (("bytes_down", b"S2C"), ("bytes_up", b"C2S")):
            assert line[key] == of_round["encoded"][of_round["direction"] == direction].sum()
        reports = found["training/reports"][line["round"] - 1]
        assert line["online"] == np.flatnonzero(np.isfinite(reports[:, 0])).tolist()
        assert line["loss"] == pytest.approx(np.nanmean(reports[:, 0]))


def test_headlines_are_means_of_the_metrics(plays):
    folder = plays[1].folder / "fedstil"
    found, of_round = results(folder), lines(folder)
    rank1 = found["local/metrics"][1, :, 0, :, 0]  # after round 2: both tasks seen
    assert of_round[1]["local_rank1"] == pytest.approx(100 * rank1.mean())
    served = found["served/metrics"][0, :, 0, 0, 0]  # after round 1: one task seen
    assert of_round[1]["served_rank1"] == pytest.approx(100 * served.mean())


def test_no_time_is_counted_twice(plays, names):
    for ranks, played in plays.items():
        spent = np.zeros(ranks)
        for name in names:
            with h5py.File(played.folder / name / "results.h5") as file:
                seconds = {activity: of[()] for activity, of in file["seconds"].items() if not of.is_scale}
                assert (seconds.pop("cpu") > 0).all()
                assert seconds.keys() >= {"set-up", "wait", "evaluate", *(["exchange"] if ranks > 1 else [])}
                spent += np.nansum(list(seconds.values()), axis=0)
        assert (spent > 0).all()
        assert (spent < played.seconds).all()


def test_the_log_has_what_was_printed(plays, names):
    """Stages and rounds with date and time before them, and the tables at the end."""
    for played in plays.values():
        printed = [line.rstrip() for line in played.output.splitlines()]
        for name in names:
            logged = (played.folder / name / "log.txt").read_text().splitlines()
            told = [line[21:] for line in logged if line.startswith("20")]
            assert sum(" round " in line for line in told[1:]) == len(lines(played.folder / name))
            assert set(told) <= set(printed)
            assert logged[-1] == f"results in {played.folder / name}"


def test_output_has_no_terminal_codes(plays):
    assert not any("\x1b" in output or "\r" in output.replace("\r\n", "\n") for _, output, _ in plays.values())


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command(plays, tmp_path):
    """The documented one on a single rank, without mpirun."""
    done = alone("-m", "fedstil_mpi.run", TINY, SMALL, f"output={tmp_path}", "name=single", "method.name=single")
    assert done.returncode == 0, done.stderr
    assert f"results in {tmp_path / 'single'}" in done.stdout.replace(os.linesep, "")
    assert "\x1b" not in done.stdout
    assert not different(results(tmp_path / "single"), results(plays[1].folder / "single"))


def test_a_run_goes_on_where_its_lines_are_read_no_more(tmp_path):
    find_mpirun()  # skips where MPI is not installed
    settings = [TINY, SMALL, f"output={tmp_path}", "method.name=single", "name=single"]
    command = [sys.executable, "-m", "fedstil_mpi.run", *settings]
    job = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
    while "images" not in job.stdout.readline():
        assert job.poll() is None
    job.stdout.close()
    assert job.wait(120) == 0
    assert (tmp_path / "single" / "complete").exists()
    assert (tmp_path / "single" / "log.txt").read_text().endswith(f"results in {tmp_path / 'single'}\n")
