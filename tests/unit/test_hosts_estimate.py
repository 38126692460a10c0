"""The bench of hosts: what it expects of links, on numbers that can be worked out by hand."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "bench"))
hosts = import_module("hosts")


def test_what_ranks_send_each_other_when_columns_are_shared():
    """Two blocks of columns on each of three ranks, of whom the first has no clients and the others one and three."""
    block = 2 * 4096 * 4  # bytes
    down = hosts.sent_down("all_ranks", 6 * 4096, [0, 1, 3])
    assert down.tolist() == [[0, block, 3 * block], [0, 0, 3 * block], [0, block, 0]]


def test_what_ranks_send_each_other_when_rank_0_has_all():
    assert hosts.sent_down("rank_0", 100, [0, 1, 3]).tolist() == [[0, 400, 1200], [0, 0, 0], [0, 0, 0]]


def test_the_busiest_link_says_how_long_a_round_takes():
    """12 MB leave rank 0, and come back: 96 Mbit each at 50 Mbit/s."""
    found = hosts.estimate("rank_0", 1_000_000, [0, 1, 1, 1])
    assert found.exchange == pytest.approx(2 * 96 / hosts.RATE)
    assert found.carried.tolist() == [[12e6, 12e6], [4e6, 4e6], [4e6, 4e6], [4e6, 4e6]]
