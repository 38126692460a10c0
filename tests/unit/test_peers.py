"""The bench of peers: its arithmetic, on numbers that can be worked out by hand."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "bench"))
tables = import_module("peers_tables")

OWN = tables.Program("own", "own.py", None, "all")
PEER = tables.Program("peer", "peer.py", "peer", "nothing")


def run(losses, cpu):
    return tables.Run(cpu, losses, {"travelling weights": 51200, "drawn": 10})


def cells(row):
    return [cell.strip() for cell in row.strip("|").split("|")]


@pytest.fixture
def runs():
    """40 rounds of 10 clients: 2 ms each for 0.8 s, 20 ms for 8 s, after 5 s of set-up that do not count; later half as much."""
    own = run([4.0, 3.0, 2.0], {6: 5.0, 46: 5.8, 301: 9.0, 341: 9.4})
    return {(100, OWN): [own], (100, PEER): [run([4.0, 3.5], {6: 5.0, 46: 13.0, 301: 20.0, 341: 24.0})]}


def test_set_up_is_not_counted(runs):
    assert tables.per_client_round(runs[100, OWN][0], (6, 46)) == pytest.approx(2)
    assert tables.per_client_round(runs[100, OWN][0], (301, 341)) == pytest.approx(1)


def test_ratio_is_to_this_program_in_the_same_rounds(runs):
    _, _, own, peer = tables.times(runs).splitlines()
    assert cells(own) == ["own", "51,200", "2.00", "1.00", "1.00", "1.00"]
    assert cells(peer) == ["peer", "51,200", "20.00", "10.00", "10.00", "10.00"]


def test_the_median_of_repeats_counts(runs):
    slow = run([4.0], {6: 0.0, 46: 400.0, 301: 500.0, 341: 540.0})
    *_, peer = tables.times(runs | {(100, PEER): [*runs[100, PEER], slow, slow]}).splitlines()
    assert cells(peer)[2::2] == ["1000.00", "100.00"]


def test_losses_are_compared_in_the_rounds_that_all_have_played(runs):
    _, _, own, peer = tables.losses(runs, 1).splitlines()
    assert cells(own) == ["own", "100", "4.0000", "3.0000", "0e+00", "0e+00"]
    assert cells(peer) == ["peer", "100", "4.0000", "3.5000", "5e-01", "5e-01"]
