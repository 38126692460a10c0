"""A run over real links: three hosts, 20 Mbit/s and 50 ms between them. What the links carried is what the ledger says.

The hosts are network namespaces edge0, edge1, ... (support/links.py), with every host's bytes and packets counted at its link.

Rank 0, the server, has a host for itself, and each of two clients has one, so that what the ledger books for a client is
what its link has to carry. The links carry more, measured here (bytes of a client's host, received and sent):

    learning alone    the ledger's 9,139,880 and 0            links  9,491,935 and 173,420
    FedAvg            the ledger's 16,346,280 and 7,206,416   links 17,075,007 and 7,763,645

The difference is TCP/IP: 52 bytes of headers in every packet of at most 1500, acknowledgements too. Less these, 15 kB more
were received than booked and 15 kB more were sent, in either run: to start the job, to agree and to gather the metrics.
FedAvg's messages alone, as the difference of the two runs, came with 296 and 777 bytes of MPI's own, that is 0.01 %.
"""

import json
import sys

import pytest

from support import TINY, links
from support.launch import alone
from support.results import different, results

pytestmark = pytest.mark.slow

RUNS = {
    "single": ["method.name=single"],
    "fedavg": ["method.name=fedavg"],
    "coded": ["method.name=fedavg", "compression.up=ternary_entropy", "compression.down=int4"],
}
HOSTS = {0: "edge1", 1: "edge2"}
"""Client -> its host."""
HEADERS = 52
"""Bytes of IP (20) and TCP (20, and 12 of time stamps) in each packet."""
BESIDE = 40_000
"""Bytes that a host may receive or send beside the ledger's, headers not counted."""
AGAIN = 0.01
"""Share of the ledger's bytes that TCP may send again, when a busy machine lets its acknowledgements come late."""


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Calls edge_net.py on a network that is up."""
    with links.network(tmp_path_factory.mktemp("net"), hosts=3, rate_mbit=20, delay_ms=50) as call:
        yield call


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("links")


@pytest.fixture(scope="module")
def carried(network, folder):
    """Run -> host -> what its link counted meanwhile."""
    found = {}
    for name in RUNS:
        before = json.loads(network("stats").stdout)
        done = network("mpirun", "-n", 3, sys.executable, *run(name, folder))
        assert done.returncode == 0, done.stderr
        after = json.loads(network("stats").stdout)
        found[name] = {
            host: {key: count - before[host][key] for key, count in of_host.items()} for host, of_host in after.items()
        }
    return found


def run(name, folder):
    settings = ["data.clients=[0,1]", f"name={name}", f"output={folder}"]
    return ["-m", "fedstil_mpi.run", TINY, *settings, *RUNS[name]]


def payload(counts, way):
    """Bytes without the headers of TCP and IP. way: rx | tx."""
    return counts[f"{way}_bytes"] - HEADERS * counts[f"{way}_packets"]


def booked(folder, name, client):
    """The ledger's bytes to and from a client, under the links' words for them, at its host."""
    ledger = results(folder / name)["ledger"]
    own = ledger[ledger["client"] == client]
    return {way: int(own["encoded"][own["direction"] == direction].sum()) for way, direction in WAYS.items()}


WAYS = {"rx": b"S2C", "tx": b"C2S"}


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("client", HOSTS)
def test_links_carry_what_the_ledger_books(carried, folder, client, name):
    counts = carried[name][HOSTS[client]]
    ledger = booked(folder, name, client)
    for way, expected in ledger.items():
        assert expected <= payload(counts, way) <= (1 + AGAIN) * expected + BESIDE
        with_headers = counts[f"{way}_bytes"]
        assert with_headers <= expected + 0.06 * sum(ledger.values()) + 2 * BESIDE


@pytest.mark.parametrize("client", HOSTS)
def test_messages_cost_next_to_nothing_beside_their_content(carried, folder, client):
    """What two runs have in common, to start and to gather metrics, is not in their difference."""
    single, fedavg = (booked(folder, name, client) for name in ("single", "fedavg"))
    for way in WAYS:
        more = fedavg[way] - single[way]
        assert more > 7_000_000
        measured = payload(carried["fedavg"][HOSTS[client]], way) - payload(carried["single"][HOSTS[client]], way)
        assert measured == pytest.approx(more, abs=4000 + AGAIN * fedavg[way])


def test_the_server_carries_the_bytes_of_all_clients(carried, folder):
    for name in RUNS:
        ledgers = [booked(folder, name, client) for client in HOSTS]
        for way, other in (("tx", "rx"), ("rx", "tx")):
            expected = sum(ledger[other] for ledger in ledgers)
            assert expected <= payload(carried[name]["edge0"], way) <= (1 + AGAIN) * expected + 2 * BESIDE


@pytest.mark.parametrize("name", ["fedavg", "coded"])
def test_results_are_those_of_a_single_rank(carried, folder, tmp_path, name):
    assert alone(*run(name, tmp_path)).returncode == 0
    assert not different(results(folder / name), results(tmp_path / name))
