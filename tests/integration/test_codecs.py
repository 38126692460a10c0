"""Every codec with every method whose weights travel: ranks, pauses, and what MPI itself counts.

The full matrix is long; the short one has every codec and every method once, and both kinds of clients that send seldom.
"""

import json
import random
from itertools import cycle

import pytest

from fedstil_mpi.config.sections import LOSSY
from fedstil_mpi.launch.signals import PAUSED
from support import SMALL
from support.cases import FEDERATED, working
from support.launch import codes, play
from support.monitoring import counted, settings
from support.results import different, results

pytestmark = pytest.mark.slow

PROTOTYPES = ["prototypes.exchange=true", "compression.prototypes=bfloat16", "compression.first_contact=float16"]
KNOWN = ["compression.rows=known", *PROTOTYPES]
ADAPTIVE = ["compression.upload_above=0.02"]


def experiment(method, codec, *more):
    both = [f"compression.up={codec}", f"compression.down={codec}"]
    return [SMALL, f"method.name={method}", "rounds.per_task=2", *working(method, *both, *more)]


def with_all_methods(codec, *more):
    return {name: experiment(name, codec, *more) for name in FEDERATED}


SHORT = {
    f"{method}_{codec}": experiment(method, codec, *more)
    for method, codec, more in zip(FEDERATED, cycle(LOSSY), cycle([KNOWN, [*KNOWN, *ADAPTIVE], []]))
} | {"dense_adaptive": experiment("fedstil", "none", *ADAPTIVE)}
FULL = {
    **{codec: with_all_methods(codec) for codec in LOSSY},
    **{f"{codec}_known": with_all_methods(codec, *KNOWN) for codec in ("ternary", "ternary_entropy")},
    **{f"{codec}_adaptive": with_all_methods(codec, *KNOWN, *ADAPTIVE) for codec in ("none", "ternary_entropy")},
}


LONG = [pytest.param(of, marks=pytest.mark.long) for of in FULL.values()]


@pytest.fixture(scope="module", params=[SHORT, *LONG], ids=["short", *FULL])
def coded(request):
    return request.param


@pytest.fixture(scope="module")
def whole(coded, tmp_path_factory):
    """The folder of the experiments, each played by a single rank."""
    folder = tmp_path_factory.mktemp("whole")
    assert play(1, folder, coded).stdout.count("bytes: as predicted from the layouts") == len(coded)
    return folder


def check(folder, whole, coded):
    for name in coded:
        assert different(results(folder / name), results(whole / name)) == [], name


@pytest.mark.long
@pytest.mark.parametrize("ranks", [3, 6])
def test_results_do_not_depend_on_the_number_of_ranks(coded, whole, ranks, tmp_path):
    play(ranks, tmp_path, coded)
    check(tmp_path, whole, coded)


def test_a_paused_run_goes_on_as_if_it_had_not_been_paused(coded, whole, tmp_path):
    """On other numbers of ranks than it was played on; paused in training or between rounds, at any of the four."""
    draw = random.Random(json.dumps(coded))
    moments = {name: draw.randint(2, 10) for name in coded}
    assert set(codes(play(3, tmp_path, coded, json.dumps(moments))).values()) == {PAUSED}
    assert not any(codes(play(2, tmp_path, coded, "{}")).values())
    check(tmp_path, whole, coded)


@pytest.mark.parametrize(
    ("method", "codec", "more"),
    [
        ("fedstil", "ternary_entropy", ADAPTIVE),
        *(pytest.param(name, codec, (), marks=pytest.mark.long) for name in FEDERATED for codec in LOSSY),
    ],
)
def test_mpi_counts_what_the_ledger_books(method, codec, more, tmp_path):
    """With a rank for each of the three clients a broadcast crosses as often as it is booked."""
    play(4, tmp_path / "runs", {"run": experiment(method, codec, *more)}, env=settings(tmp_path))
    if not (found := counted(tmp_path)):
        pytest.skip("this MPI library has no monitoring like Open MPI's")
    assert found == [results(tmp_path / "runs" / "run")["ledger"]["encoded"].sum()]
