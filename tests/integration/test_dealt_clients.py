"""Who plays which client changes nothing: dealt anew in each round or not, on any number of ranks, interrupted or not."""

import json

import pytest

from fedstil_mpi import methods
from fedstil_mpi.config import loading
from fedstil_mpi.data.pack.export import write_folder
from fedstil_mpi.data.sources import open_stream
from fedstil_mpi.federation.balance import dealing, ranks_of
from fedstil_mpi.federation.plan import make_plan
from fedstil_mpi.launch.placement import assign_clients
from fedstil_mpi.launch.signals import PAUSED
from support import SMALL, TINY
from support.launch import codes, play
from support.results import different, lines, results

pytestmark = pytest.mark.slow

CLIENTS = 9
DRAWN = [
    SMALL,
    f"data.synthetic.clients={CLIENTS}",
    "rounds.clients_per_round=5",
    "rounds.total=5",
    "rounds.evaluate_every=2",
    "participation.stragglers=0.4",
    "participation.dropout=0.1",
    "placement.clients=dealt",
]
EXPERIMENTS = {
    "fedavg": [
        *("method.name=fedavg", *DRAWN, "train.steps=0", "train.epochs=2", "rounds.exchange_every=2"),
        *("data.kind=folder", "data.path=FOLDER"),
    ],
    "coded": [
        *("method.name=fedstil", *DRAWN, "prototypes.exchange=true", "evaluation.gallery=[client,all]"),
        *("compression.up=int8", "checkpoint.every=2", "serving.average=0.5"),
    ],
    "waves": [
        *("method.name=fedstil", *DRAWN, "prototypes.exchange=false"),
        *("placement.server=all_ranks", "placement.away=files", "placement.at_once=3"),
    ],
}


@pytest.fixture(scope="module")
def experiments(tmp_path_factory):
    """One of them reads its images."""
    folder = tmp_path_factory.mktemp("folder") / "images"
    config = loading.resolve(loading.read(TINY, [f"data.synthetic.clients={CLIENTS}", "seed=2"]))
    write_folder(open_stream(config.data, config.seed), folder)
    return {name: [setting.replace("FOLDER", str(folder)) for setting in of] for name, of in EXPERIMENTS.items()}


def check_equal(folder, others):
    for name in EXPERIMENTS:
        assert not different(results(folder / name), results(others / name)), name
        assert lines(folder / name) == lines(others / name), name


@pytest.fixture(scope="module")
def alone(experiments, tmp_path_factory):
    """A single rank plays all."""
    folder = tmp_path_factory.mktemp("alone")
    assert not any(codes(play(1, folder, experiments)).values())
    return folder


@pytest.mark.parametrize(("name", "ranks"), [(name, ranks) for name in EXPERIMENTS for ranks in (3, 4)])
def test_clients_that_have_something_move_in_these_runs(experiments, name, ranks):
    source = loading.read(TINY, experiments[name])
    method = methods.load(source["method"]["name"])
    config = loading.resolve(source, method.Options, method.PRESETS)
    stream, clients_of = open_stream(config.data, config.seed), assign_clients(CLIENTS, ranks)
    dealt = dealing(make_plan(config, method, stream), stream, clients_of)
    assert dealt.players == list(range(1, ranks))
    before, met, moves = ranks_of(clients_of), set(), 0
    for online, after in zip(dealt.work, dealt.follow(before), strict=True):
        moves += sum(before[client] != after[client] for client in met.intersection(online))
        met, before = met.union(online), dict(after)
    assert moves >= 2


@pytest.mark.long
def test_results_do_not_depend_on_it(experiments, alone, tmp_path):
    assert not any(codes(play(4, tmp_path, experiments)).values())
    check_equal(tmp_path, alone)


def test_a_run_goes_on_with_others_playing(experiments, alone, tmp_path):
    """Interrupted while it trains, and gone on with by one rank more."""
    moments = json.dumps(dict.fromkeys(EXPERIMENTS, 12))
    assert set(codes(play(3, tmp_path, experiments, moments)).values()) == {PAUSED}
    assert not any(codes(play(4, tmp_path, experiments, "{}")).values())
    check_equal(tmp_path, alone)


def test_refused_before_anything_begins(tmp_path):
    done = play(2, tmp_path, {"lost": [*EXPERIMENTS["fedavg"], "fault_tolerance=true"]})
    assert codes(done) == {"lost": 2}
    assert (
        done.stderr.count("placement.clients is dealt, but with fault_tolerance=true a client belongs to its rank") == 1
    )
    assert not (tmp_path / "lost").exists()
