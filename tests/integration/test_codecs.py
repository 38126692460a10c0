"""Every codec with every method whose weights travel: ranks, pauses, and what MPI itself counts."""

import json
import random

import pytest

from fedstil_mpi.config.sections import LOSSY
from fedstil_mpi.launch.signals import PAUSED
from support import SMALL
from support.cases import FEDERATED
from support.launch import codes, play
from support.monitoring import counted, settings
from support.results import different, results

pytestmark = pytest.mark.slow

RANKS = (1, 3, 6)
PROTOTYPES = ["prototypes.exchange=true", "compression.prototypes=bfloat16", "compression.first_contact=float16"]


def experiments(codec, *more):
    both = [f"compression.up={codec}", f"compression.down={codec}"]
    return {name: [SMALL, f"method.name={name}", "rounds.per_task=2", *both, *more] for name in FEDERATED}


@pytest.fixture(
    scope="module",
    params=[*((codec, "all") for codec in LOSSY), ("ternary", "known"), ("ternary_entropy", "known")],
    ids="-".join,
)
def coded(request):
    codec, rows = request.param
    return experiments(codec, f"compression.rows={rows}", *(PROTOTYPES if rows == "known" else []))


@pytest.fixture(scope="module")
def whole(coded, tmp_path_factory):
    """The folder of the experiments, each played by a single rank."""
    folder = tmp_path_factory.mktemp("whole")
    assert play(1, folder, coded).stdout.count("bytes: as predicted from the layouts") == len(coded)
    return folder


def check(folder, whole):
    for name in FEDERATED:
        assert different(results(folder / name), results(whole / name)) == [], name


@pytest.mark.long
@pytest.mark.parametrize("ranks", RANKS[1:])
def test_results_do_not_depend_on_the_number_of_ranks(coded, whole, ranks, tmp_path):
    play(ranks, tmp_path, coded)
    check(tmp_path, whole)


@pytest.mark.long
def test_a_paused_run_goes_on_as_if_it_had_not_been_paused(coded, whole, tmp_path):
    """On another number of ranks; paused in training or between rounds, at any of the four."""
    draw = random.Random(json.dumps(coded))
    moments = {name: draw.randint(2, 10) for name in coded}
    assert set(codes(play(3, tmp_path, coded, json.dumps(moments))).values()) == {PAUSED}
    assert not any(codes(play(draw.choice([1, 6]), tmp_path, coded, "{}")).values())
    check(tmp_path, whole)


@pytest.mark.parametrize(
    ("method", "codec"),
    [
        ("fedstil", "ternary_entropy"),
        *(pytest.param(name, codec, marks=pytest.mark.long) for name in FEDERATED for codec in LOSSY),
    ],
)
def test_mpi_counts_what_the_ledger_books(method, codec, tmp_path):
    """With a rank for each of the three clients a broadcast crosses as often as it is booked."""
    play(4, tmp_path / "runs", {"run": experiments(codec)[method]}, env=settings(tmp_path))
    if not (found := counted(tmp_path)):
        pytest.skip("this MPI library has no monitoring like Open MPI's")
    assert found == [results(tmp_path / "runs" / "run")["ledger"]["encoded"].sum()]
