"""Messages between the server and the clients of real ranks: who gets what, what is booked, and what MPI itself counts."""

import json
from typing import NamedTuple

import pytest

from support.launch import SCRIPTS, mpirun
from support.monitoring import counted, settings
from support.scripts.exchange_tour import DOWN, ROUNDS, UP, dealt, items, plain, tensor

BYTES = {"torch.float32": 12, "torch.float64": 24, "torch.float16": 6, "torch.bfloat16": 6, "torch.int64": 24}
BYTES |= {"torch.uint8": 3, "torch.bool": 3, "one": 4, "shared": 12, "shared int": 24, "ragged": 12, "ragged int": 8}
BYTES |= {"sparse": 12}
"""Kind -> bytes of one client's message, or of one item of it."""
ENCODED = BYTES | {"sparse": 16}
"""One of three scalars is not zero: their number, its place and its value."""


class Tour(NamedTuple):
    size: int
    found: dict
    counted: list[int]
    """Bytes in the collectives of each Exchange as Open MPI's monitoring has them; empty for other libraries."""


@pytest.fixture(scope="module", params=[1, 4])
def tour(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("monitoring")
    done = mpirun(request.param, [SCRIPTS / "exchange_tour.py"], env=settings(folder), timeout=300)
    assert done.returncode == 0, done.stderr
    return Tour(request.param, json.loads(done.stdout), counted(folder))


def cases(tour):
    """(round, online clients, by rank what `play` returned), over all numbers of clients."""
    for clients, rounds in ROUNDS.items():
        ranks = tour.found[str(clients)]
        assert [tuple(rank["mine"]) for rank in ranks] == dealt(clients, tour.size)
        for round, online in enumerate(rounds):
            yield round, online, ranks


def test_every_online_client_gets_its_own_row(tour):
    for round, online, ranks in cases(tour):
        for rank in ranks:
            assert rank["downs"][round] == {
                str(client): {
                    part.kind: plain(tensor(part, round, 0 if part.shared else client, up=False)) for part in DOWN
                }
                for client in online
                if client in rank["mine"]
            }


def test_the_server_gets_every_online_clients_row_in_client_order(tour):
    for round, online, (server, *others) in cases(tour):
        assert server["ups"][round] == {
            part.kind: [plain(tensor(part, round, client, up=True)) for client in online] for part in UP
        }
        assert all(rank["ups"][round] == {} for rank in others)


def test_what_was_measured_arrives_in_client_order(tour):
    assert dealt(7, 4) == [(), (2, 5), (1, 4), (0, 3, 6)]
    for clients in ROUNDS:
        server, *others = tour.found[str(clients)]
        assert server["measured"] == [[client, 10 * client] for client in range(clients)]
        assert all(rank["measured"] is None for rank in others)


def test_ledger_books_what_each_edge_link_carries(tour):
    for clients, rounds in ROUNDS.items():
        server, *others = tour.found[str(clients)]
        expected = []
        for round, online in enumerate(rounds):
            for direction, parts in (("S2C", DOWN), ("C2S", UP)):
                for part in parts:
                    for client in online:
                        count = items(round, client, direction == "C2S") if part.ragged else 1
                        raw, encoded = count * BYTES[part.kind], count * ENCODED[part.kind]
                        expected += [[round, client, direction, part.kind, raw, encoded]] if raw else []
                        expected += [[round, client, direction, "header", 8, 8]] if part.ragged else []
        assert sorted(server["ledger"]) == sorted(expected)
        assert all(rank["ledger"] == [] for rank in others)


def test_moved_is_what_crosses_between_ranks(tour):
    shared = BYTES["shared"] + BYTES["shared int"]
    for clients, rounds in ROUNDS.items():
        booked = sum(entry[5] for entry in tour.found[str(clients)][0]["ledger"])
        online = sum(len(drawn) for drawn in rounds)
        broadcast = shared * (tour.size - 1) * len(rounds)  # to every rank, clients or not
        expected = 0 if tour.size == 1 else booked - shared * online + broadcast
        assert tour.found[str(clients)][0]["moved"] == expected


@pytest.mark.parametrize("tour", [4], indirect=True)  # of a single rank MPI counts the bytes to itself
def test_mpi_counts_the_same_bytes(tour):
    if not tour.counted:
        pytest.skip("this MPI library has no monitoring like Open MPI's")
    moved = [tour.found[str(clients)][0]["moved"] for clients in ROUNDS]
    assert sorted(tour.counted) == sorted([*moved, 0])  # the last exchange carried nothing


@pytest.mark.parametrize("tour", [1], indirect=True)
def test_knowledge_that_does_not_fit_is_no_traffic(tour):
    assert tour.found["mistakes"] == [
        "KeyError",
        "RuntimeError",
        "RuntimeError",
        "RuntimeError",
        "RuntimeError",
        "RuntimeError",
    ]


def test_waiting_for_the_others_is_no_time_of_the_exchange(tour):
    for rank, seconds in enumerate(tour.found["seconds"]):
        assert (seconds["wait"] > 0.5) == (rank > 0)
        assert seconds["exchange"] < 0.5
