"""Seconds on edge links, by hand."""

import numpy as np
import pytest

from fedstil_mpi import replay
from fedstil_mpi.report import load
from fedstil_mpi.results.reading import links, runs
from fedstil_mpi.results.reading.links import Assumptions, Link
from fedstil_mpi.results.report import edge_links
from fedstil_mpi.util.errors import InputError
from support import made_runs
from support.made_runs import FIRST, MB

# Two clients, two rounds and the closing distribution: client 1 gets twice as much as client 0, and sends half of it.
LEDGER = [
    *((1, 0, "S2C", "model", MB), (1, 1, "S2C", "model", 2 * MB), (1, 0, "C2S", "weights", MB, MB // 4)),
    *((1, 1, "C2S", "weights", MB), (2, 0, "S2C", "weights", MB), (2, 1, "S2C", "weights", MB)),
    *((2, 0, "C2S", "weights", MB), (2, 1, "C2S", "weights", MB), (3, 0, "S2C", "weights", 3 * MB)),
]
LINK = Link(down=8e6, up=4e6, latency=0.5)  # a megabyte takes a second down, two up


@pytest.fixture
def run(tmp_path):
    return runs.read(made_runs.write(tmp_path / "run", FIRST, ledger=LEDGER))


def test_a_round_waits_for_its_slowest_client(run):
    found = links.round_seconds(run, Assumptions(LINK, server=1e12))
    np.testing.assert_allclose(found, [[2.5, 2.5], [1.5, 2.5], [3.5, 0]])


def test_the_server_carries_all_of_them(run):
    found = links.round_seconds(run, Assumptions(LINK, server=2e6))  # a megabyte takes four seconds
    np.testing.assert_allclose(found, [[12.5, 5.5], [8.5, 8.5], [12.5, 0]])


def test_training_takes_its_time_in_every_round(run):
    found = links.round_seconds(run, Assumptions(LINK, server=1e12, compute=10))
    np.testing.assert_allclose(found, [[2.5, 12.5], [1.5, 12.5], [3.5, 0]])


def test_what_is_served_is_there_after_the_next_way_down(run):
    np.testing.assert_allclose(links.seconds_by_evaluation(run, Assumptions(LINK, server=1e12)), [6.5, 12.5])


def test_seconds_to_an_accuracy_of_the_whole_stream(run):
    """FIRST: 50 and 70 % on the first task count half, then 40, 80, 60 and 60 %."""
    given = Assumptions(LINK, server=1e12)
    assert links.accuracy_of_stream(run) == pytest.approx([30, 60])
    assert links.seconds_to(run, 30 - 1e-6, given) == 6.5
    assert links.seconds_to(run, 45, given) == 12.5
    assert np.isnan(links.seconds_to(run, 61, given))


def test_what_has_nothing_to_search_is_no_part_of_the_stream(tmp_path):
    """Client 1's first task has no query: 50 %, later 40 and 80 %, and 60 % on its second one; those that are not met yet count 0."""
    served = [[[0.5, np.nan], [np.nan, np.nan]], [[0.4, 0.8], [np.nan, 0.6]]]
    run = runs.read(made_runs.write(tmp_path / "run", served, ledger=LEDGER))
    assert links.accuracy_of_stream(run) == pytest.approx([50 / 3, 60])


def test_means_over_seeds_and_what_not_every_seed_reaches(tmp_path):
    (variant,) = [v for v in load([made_runs.write_three(tmp_path)], None).variants if v.label == "fedstil"]
    given = Assumptions(links.LINKS["lte-m"])
    of_round, in_all, soon, never = links.totals(variant, given, [10, 90])
    # Both clients: a model of 100 MB and twice 10 MB down at 300 kbit/s, twice 10 MB up at 375.
    assert in_all == pytest.approx(8 * 120 / 0.3 + 8 * 20 / 0.375 + 5 * 0.1)
    assert soon == pytest.approx(8 * 110 / 0.3 + 8 * 10 / 0.375 + 3 * 0.1)
    assert of_round == pytest.approx((in_all - 8 * 10 / 0.3 - 0.1) / 2)
    assert np.isnan(never)
    row = next(line for line in edge_links.section([variant], variant).splitlines() if line.startswith("| fedstil"))
    assert f" {in_all:.0f} " in row


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("20Mbit/50ms", Link(20e6, 20e6, 0.05)),
        ("1.5Gbit/300kbit/0ms", Link(1.5e9, 3e5, 0)),
        ("dsl", links.LINKS["dsl"]),
    ],
)
def test_links_by_name_and_by_rates(text, link):
    assert links.link(text) == link


@pytest.mark.parametrize("text", ["5g", "20/50", "0Mbit/5ms", "-1Mbit/5ms", "1Mbit", "1Mbit/1Mbit/1Mbit/5ms"])
def test_other_links_are_refused(text):
    with pytest.raises(InputError, match="--link"):
        links.link(text)


def test_the_command(run, capsys):
    replay.main([str(run.folder), "--link", "8Mbit/4Mbit/500ms", "--server", "1000Gbit", "--accuracy", "45", "99"])
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("fedstil"))
    assert row.split()[1:] == ["1", "4.50", "12.50", "12.50", "–"]
    for wrong in (
        ["--compute", "nan"],
        ["--link", "x"],
        ["--server", "fast"],
        ["--accuracy", "0"],
        ["--accuracy", "101"],
    ):
        with pytest.raises(SystemExit) as exit:
            replay.main([str(run.folder), *wrong])
        assert exit.value.code == 2
