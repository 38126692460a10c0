"""Two hundred clients of whom ten are drawn a round: who mixes, where models of the others lie, ranks and pauses change nothing."""

import json

import pytest

from fedstil_mpi.launch.signals import PAUSED
from support import SMALL
from support.launch import codes, play
from support.results import different, lines, results

MANY = [
    SMALL,
    "method.name=fedstil",
    "prototypes.exchange=true",
    "data.synthetic.clients=200",
    "data.synthetic.people_per_task=2",
    "rounds.clients_per_round=10",
    "rounds.total=6",
    "rounds.evaluate_every=3",
    "train.steps=1",
]
IN_FILES, IN_MEMORY = (
    ["placement.server=all_ranks", "placement.away=files"],
    ["placement.server=rank_0", "placement.away=memory"],
)


def unequal(folder, other):
    found, expected = folder / "many", other / "many"
    return different(results(found), results(expected)) or lines(found) != lines(expected)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """On one rank, in memory, without a pause."""
    folder = tmp_path_factory.mktemp("alone")
    assert codes(play(1, folder, {"many": [*MANY, *IN_MEMORY]})) == {"many": 0}
    return folder


@pytest.mark.slow
def test_interrupted_and_resumed_is_equal_to_the_bit(alone, tmp_path):
    """In two waves a round, then in three."""
    first, later = ({"many": [*MANY, *IN_FILES, f"placement.at_once={at_once}"]} for at_once in (5, 4))
    assert codes(play(3, tmp_path, first, json.dumps({"many": 12}))) == {"many": PAUSED}
    assert codes(play(2, tmp_path, later, "{}")) == {"many": 0}
    assert not unequal(tmp_path, alone)


@pytest.mark.long
@pytest.mark.parametrize("ranks", [1, 3, 6])
@pytest.mark.parametrize("where", [IN_FILES, IN_MEMORY], ids=["files", "memory"])
def test_equal_on_any_number_of_ranks(alone, tmp_path, ranks, where):
    assert codes(play(ranks, tmp_path, {"many": [*MANY, *where]})) == {"many": 0}
    assert not unequal(tmp_path, alone)
