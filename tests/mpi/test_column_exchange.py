"""Messages of a server whose columns lie on several ranks: they arrive whole, and its ranks get their part of what comes."""

import json

import pytest

from fedstil_mpi.comm.ledger import Ledger
from support.launch import SCRIPTS, mpirun
from support.scripts import column_tour as tour


@pytest.fixture(scope="module", params=[3, 6])
def found(request):
    done = mpirun(request.param, [SCRIPTS / "column_tour.py"], timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_all_that_is_sent_arrives_where_it_should(found):
    assert [rank["wrong"] for rank in found] == [[]] * len(found)


def test_the_ledger_has_what_edge_links_would_carry(found):
    expected = Ledger()
    for round, online in enumerate(tour.ONLINE):
        for direction, parts in (("S2C", tour.DOWN), ("C2S", tour.UP)):
            for part in parts if online else ():
                rows = [tour.row(part, round, client) for client in online]
                expected.book_rows(round, direction, part, online, rows)
    assert found[0]["booked"] == [list(entry) for entry in expected.entries]
    assert not any(rank["booked"] for rank in found[1:])


def test_columns_are_dealt_in_blocks(found):
    widths = [rank["width"] for rank in found]
    assert sum(widths) == tour.P
    assert max(widths) <= (5 // len(found) + 1) * 4096


def test_no_message_as_long_as_all_columns_is_kept(found):
    assert [rank["kept"] for rank in found] == [[]] * len(found)
