"""Whole experiments under mpirun: the number of ranks changes nothing, and the run folder holds what it should."""

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest

from fedstil_mpi import methods
from fedstil_mpi.config import loading
from fedstil_mpi.config.sections import LOSSY
from support import TINY
from support.launch import SCRIPTS, alone, mpirun
from support.results import different, equal, results

RANKS = (1, 3, 6)  # of 3 clients: all on the server's rank; two and one; one each, and two ranks with nothing to do
MOST = 6  # the ranks that only play the CORE
CLIENTS, TASKS = 3, 2
BOTH = ("short", pytest.param("long", marks=[pytest.mark.slow, pytest.mark.long]))

METHODS = methods.names()
EPOCHS = ["train.steps=0", "train.epochs=2"]  # as the reference counts
LATE = ["rounds.clients_per_round=2", "prototypes.exchange=true"]
FEDERATED = ("fedavg", "fedcurv", "fedprox", "fedstil", "fedstil_atten", "fedweit")
CODECS = {
    "up": "ternary_entropy",
    "down": "int4",
    "first_contact": "int8",
    "prototypes": "float16",
    "importance": "bfloat16",
}
COMPRESSED = [f"compression.{part}={codec}" for part, codec in CODECS.items()]
MEMORY = dict.fromkeys(METHODS, 0) | {"fedstil": 30, "fedstil_atten": 30, "icarl": 30}
ALL = {
    **{name: [f"method.name={name}"] for name in METHODS},
    **{f"{name}_late": [f"method.name={name}", *LATE] for name in METHODS},
    **{
        f"{name}_reference": [
            f"method.name={name}",
            "method.preset=reference_code",
            *EPOCHS,
            f"memory.size={MEMORY[name]}",
        ]
        for name in METHODS
    },
    **{f"{name}_compressed": [f"method.name={name}", *LATE, *COMPRESSED] for name in FEDERATED},
    **{f"fedstil_{codec}": [f"compression.up={codec}", f"compression.down={codec}"] for codec in LOSSY},
    "paper": ["method.preset=paper"],
    "losses": ["train.contrast=1", "train.triplet=1", "save_models=true"],
    "late": ["warmup.steps=2", "rounds.clients_per_round=1", "rounds.total=5", "evaluation.tasks=all"],
    "elastic": ["rounds.total=5", *(f"participation.{s}" for s in ("late=0.4", "dropout=0.3", "stragglers=0.5"))],
    "late_reference": ["method.preset=reference_code", "memory.size=30", *EPOCHS, "rounds.clients_per_round=2"],
    "client_late": ["method.name=fedweit", "evaluation.gallery=client", *LATE],
    "all_late": ["method.name=fedweit", "evaluation.gallery=all", *LATE],
}
SHORT = [*(f"{name}_late" for name in METHODS), "single", "fedstil", "fedcurv_reference", "fedweit_reference"]
SHORT += ["fedstil_compressed", "losses", "late", "elastic", "late_reference", "client_late", "all_late"]
CORE = {"short": ["fedstil", "late"], "long": [*METHODS, "late"]}


class Play(NamedTuple):
    folder: Path
    names: list[str]
    output: str
    seconds: float


@pytest.fixture(scope="module", params=BOTH)
def plays(request, tmp_path_factory):
    """Number of ranks -> the experiments, run in one job."""
    found, chosen = {}, {"short": SHORT, "long": list(ALL)}[request.param]
    for ranks in RANKS:
        folder, names = tmp_path_factory.mktemp(f"ranks{ranks}"), CORE[request.param] if ranks == MOST else chosen
        script = [SCRIPTS / "play.py", folder, TINY, json.dumps({name: ALL[name] for name in names})]
        began = time.monotonic()
        done = mpirun(ranks, script, timeout=600)
        assert done.returncode == 0, done.stderr
        found[ranks] = Play(folder, names, done.stdout, time.monotonic() - began)
    return found


def test_results_do_not_depend_on_the_number_of_ranks(plays):
    for ranks in RANKS[1:]:
        for name in plays[ranks].names:
            one, other = (plays[n].folder / name for n in (1, ranks))
            expected = results(one)
            assert {"final/fingerprints", "ledger", "local/metrics", "served/metrics", "training/reports"} <= set(
                expected
            )
            assert different(results(other), expected) == [], (name, ranks)
            assert (other / "metrics.jsonl").read_text() == (one / "metrics.jsonl").read_text(), (name, ranks)


def test_ledger_is_as_predicted(plays):
    for play in plays.values():
        assert play.output.count("bytes: as predicted from the layouts") == len(play.names)


def test_experiments_are_not_all_the_same(plays):
    """Equal fingerprints of one experiment on different ranks say something only if those of others differ."""
    # The newest models of multi are those of single, EWC of the reference code holds nothing in a task's first round, and to
    # a client that learns alone it makes no difference who else is drawn.
    alike = ("multi", "multi_reference", "multi_late", "ewc_reference", "client_late", "all_late")
    own = [name for name in plays[1].names if name not in alike]
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
        known = np.isfinite(found[f"{view}/metrics"]).all(axis=(2, 3))
        assert np.array_equal(known, met)
    assert [bool(model) for model in found["final/fingerprints"]] == met[-1].tolist()
    welcomed = {(entry["client"]) for entry in found["ledger"] if entry["kind"] == b"model"}
    assert welcomed == set(np.flatnonzero(met[-1]).tolist())


def test_where_queries_are_searched_changes_what_is_found_and_nothing_else(plays):
    """Not even before all are drawn: whose galleries are not there yet is searched by nobody."""
    usual = results(plays[1].folder / "fedweit_late")
    for name in ("client_late", "all_late"):
        found = results(plays[1].folder / name)
        assert np.array_equal(found["final/fingerprints"], usual["final/fingerprints"])
        assert np.array_equal(found["ledger"], usual["ledger"])
        views = [f"{view}/metrics" for view in ("local", "served", "local_task_free", "served_task_free")]
        assert all(np.array_equal(np.isfinite(found[view]), np.isfinite(usual[view])) for view in views)
        assert not all(equal(found[view], usual[view]) for view in views)


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


def test_folder_holds_config_environment_and_results(plays):
    for ranks, name in ((ranks, name) for ranks, play in plays.items() for name in play.names):
        overrides, folder = ALL[name], plays[ranks].folder / name
        files = {"complete", "config.yaml", "environment.json", "results.h5", "metrics.jsonl"}
        files |= {"models"} if name == "losses" else set()
        assert {p.name for p in folder.iterdir()} == files
        environment = json.loads((folder / "environment.json").read_text())
        placements = environment["placement"]
        assert [placement["rank"] for placement in placements] == list(range(ranks))
        assert sorted(client for placement in placements for client in placement["clients"]) == list(range(CLIENTS))
        assert {placement["threads"] for placement in placements} == {1}
        assert environment["packages"]["torch"]
        asked = complete(TINY, [f"output={plays[ranks].folder}", f"name={name}", *overrides])
        assert complete(folder / "config.yaml", []) == asked


def complete(config, overrides):
    """The whole experiment that a config stands for."""
    source = loading.read(config, overrides)
    method = methods.load(loading.resolve(source).method.name)
    return asdict(loading.resolve(source, method.Options, method.PRESETS))


def test_one_line_a_round(plays):
    for name in plays[1].names:
        check_lines(plays[1].folder / name)


def check_lines(folder):
    lines, found = lines_of(folder), results(folder)
    assert [line["round"] for line in lines] == found["training/rounds"].tolist()
    ledger = found["ledger"]
    for line in lines:
        of_round = ledger[ledger["round"] == line["round"]]
        for key, direction in (("bytes_down", b"S2C"), ("bytes_up", b"C2S")):
            assert line[key] == of_round["encoded"][of_round["direction"] == direction].sum()
        reports = found["training/reports"][line["round"] - 1]
        assert line["online"] == np.flatnonzero(np.isfinite(reports[:, 0])).tolist()
        assert line["loss"] == pytest.approx(np.nanmean(reports[:, 0]))


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_headlines_are_means_of_the_metrics(plays):
    folder = plays[1].folder / "fedstil"
    found, lines = results(folder), lines_of(folder)
    rank1 = found["local/metrics"][1, :, :, 0]  # after round 2: both tasks seen
    assert lines[1]["local_round_2"]["rank1"] == pytest.approx(100 * rank1.mean())
    served = found["served/metrics"][0, :, 0, 0]  # after round 1: one task seen
    assert lines[1]["served_round_1"]["rank1"] == pytest.approx(100 * served.mean())


def test_no_time_is_counted_twice(plays):
    for ranks, play in plays.items():
        spent = np.zeros(ranks)
        for name in play.names:
            with h5py.File(play.folder / name / "results.h5") as file:
                seconds = {activity: of_ranks[()] for activity, of_ranks in file["seconds"].items()}
                assert seconds.keys() >= {"set-up", "wait", "evaluate", *(["exchange"] if ranks > 1 else [])}
                spent += np.nansum(list(seconds.values()), axis=0)
        assert (spent > 0).all()
        assert (spent < play.seconds).all()


def test_output_has_no_terminal_codes(plays):
    assert all("\x1b" not in play.output and "\r" not in play.output.replace("\r\n", "\n") for play in plays.values())


# -- the command -------------------------------------------------------------------------------------------------------


def command(*arguments):
    """The documented command on a single rank, without mpirun."""
    return alone("-m", "fedstil_mpi.run", *arguments)


def test_command_runs_once_per_folder(plays, tmp_path):
    arguments = [TINY, f"output={tmp_path}", "name=single", "method.name=single"]
    first = command(*arguments)
    assert first.returncode == 0, first.stderr
    assert f"results in {tmp_path / 'single'}" in first.stdout.replace(os.linesep, "")
    assert "\x1b" not in first.stdout
    with h5py.File(tmp_path / "single" / "results.h5") as file:
        fingerprints = file["final/fingerprints"][()].tolist()
    assert fingerprints == results(plays[1].folder / "single")["final/fingerprints"].tolist()

    stored = (tmp_path / "single" / "results.h5").stat().st_mtime_ns
    second = command(*arguments)
    assert second.returncode == 2
    assert second.stderr.splitlines() == [
        f"fedstil_mpi: {tmp_path / 'single'} holds a run already; go on with --resume, choose another name= or output=, "
        "or remove it"
    ]
    assert (tmp_path / "single" / "results.h5").stat().st_mtime_ns == stored


def test_config_that_does_not_fit_the_stream_is_refused(tmp_path):
    done = command(TINY, f"output={tmp_path}", "rounds.clients_per_round=4")
    assert done.returncode == 2
    assert done.stderr == "fedstil_mpi: rounds.clients_per_round = 4, but there are 3 clients\n"
    assert not list(tmp_path.iterdir())
