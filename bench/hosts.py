"""Mixing on four hosts with links between them: bytes and seconds of MPI's traffic beside an estimate, as Markdown.

    FEDSTIL_NETNS=FOLDER .venv/bin/python bench/hosts.py --output bench/hosts.md

FOLDER has edge_net.py, which makes hosts of network namespaces (tests/integration/test_edge_links.py); it needs root. Clients and
images are those of bench/scale.py.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pages

from fedstil_mpi.comm.columns import share_out
from fedstil_mpi.launch.placement import assign_clients
from fedstil_mpi.util.tables import markdown

HERE = Path(__file__).parent
HOSTS = 4
CLIENTS = 12
SCALARS = 900_000
RATE = 50
"""Mbit/s of a host's link, in either direction."""
HEADERS = 52
"""Bytes of IP and TCP in a packet."""
SHORT, LONG = 2, 6
"""Rounds of two runs, of which one is taken from the other."""
PLACES = ("rank_0", "all_ranks")

PAGE = """# Four hosts: what mixing moves between them

    FEDSTIL_NETNS=FOLDER {command}

{machine}, Python {python}, torch {torch}. {hosts} hosts, network namespaces of one machine, with links of {rate} Mbit/s each way and no delay to speak of; a
rank on each, of which rank 0 has no clients. FedSTIL, {clients} clients on the others, all in every round, P = {scalars:,} float32.
*Measured*: bytes that the host's link carried without headers of TCP and IP, and seconds of the exchange on the slowest rank; a run of {long} rounds less
one of {short}, by round. *Estimated*: from who has which columns and which clients, with nothing but the weights; seconds are the
bytes of the busiest link down, and again up, over its rate, as if links were full all the time.

{traffic}

{seconds}
"""


class Run(NamedTuple):
    carried: np.ndarray
    """Bytes that each host sent and received, float64 [hosts, 2], without headers."""
    exchange: float
    """Seconds on the slowest rank."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, hosts(Path(folder) / "net", HOSTS, RATE) as network:
        runs = {
            (place, rounds): run(network, Path(folder), place, rounds) for place in PLACES for rounds in (SHORT, LONG)
        }
    found = {place: a_round(runs[place, SHORT], runs[place, LONG]) for place in PLACES}
    clients_of = assign_clients(CLIENTS, HOSTS)
    expected = {place: estimate(place, SCALARS, [len(clients) for clients in clients_of]) for place in PLACES}
    numbers = {"hosts": HOSTS, "rate": RATE, "clients": CLIENTS, "scalars": SCALARS, "long": LONG, "short": SHORT}
    page = PAGE.format(
        **pages.made_by("torch"), **numbers, traffic=traffic(expected, found), seconds=times(expected, found)
    )
    pages.show(page, options.output)


@contextmanager
def hosts(folder: Path, number: int, rate: float):
    """A network that is up, as a function that calls edge_net.py and returns what that prints."""
    beside = Path(sys.executable).with_name("mpirun")
    own = {"EDGE_NET_DIR": str(folder), "MPIRUN": str(beside) if beside.exists() else "mpirun", "OMP_NUM_THREADS": "1"}
    script = Path(os.environ["FEDSTIL_NETNS"]) / "edge_net.py"

    def call(*arguments: Any) -> str:
        command = [sys.executable, script, *map(str, arguments)]
        return subprocess.run(command, env=os.environ | own, stdout=subprocess.PIPE, text=True, check=True).stdout

    folder.mkdir()
    try:
        call("up", "--hosts", number, "--rate-mbit", rate)
        yield call
    finally:
        call("down")


def run(network, folder: Path, place: str, rounds: int) -> Run:
    """So many rounds, with the server there."""
    name = f"{place}-{rounds}"
    overrides = [
        f"data.synthetic.clients={CLIENTS}",
        f"data.kind={HERE / 'scale_parts.py'}",
        f"model.backbone={HERE / 'scale_parts.py'}",
        *(f"rounds.{key}={rounds}" for key in ("total", "evaluate_every")),
        "checkpoint.every=0",
        f"placement.server={place}",
        f"name={name}",
        f"output={folder}",
    ]
    os.environ["SCALE_LENGTH"] = str(SCALARS // CLIENTS)
    before = counted(network)
    network("mpirun", "-n", HOSTS, sys.executable, "-m", "fedstil_mpi.run", HERE / "scale.yaml", *overrides)
    carried = counted(network) - before
    with h5py.File(folder / name / "results.h5") as results:
        return Run(carried, float(np.nanmax(results["seconds/exchange"])))


def counted(network) -> np.ndarray:
    """Bytes that each host's link has sent and received so far, without headers, [hosts, 2]."""
    stats = json.loads(network("stats"))
    ways = ("tx", "rx")
    return np.array(
        [
            [stats[f"edge{h}"][f"{w}_bytes"] - HEADERS * stats[f"edge{h}"][f"{w}_packets"] for w in ways]
            for h in range(HOSTS)
        ]
    )


def a_round(short: Run, long: Run) -> Run:
    """The difference of two runs, by round."""
    more = LONG - SHORT
    return Run((long.carried - short.carried) / more, (long.exchange - short.exchange) / more)


def sent_down(place: str, scalars: int, clients: Sequence[int]) -> np.ndarray:
    """Bytes of weights from rank to rank, int64 [ranks, ranks], when all clients are sent theirs; up it is the other way.

    clients: how many each rank has.
    """
    ranks = len(clients)
    columns = share_out(scalars, ranks) if place == "all_ranks" else [slice(0, scalars), *[slice(0, 0)] * (ranks - 1)]
    widths = np.array([of_rank.stop - of_rank.start for of_rank in columns])
    moved = 4 * np.outer(widths, clients)
    np.fill_diagonal(moved, 0)
    return moved


def estimate(place: str, scalars: int, clients: Sequence[int]) -> Run:
    """Of a round: down, and up after it."""
    down = sent_down(place, scalars, clients)
    sent, received = down.sum(1), down.sum(0)
    busiest = 2 * max(sent.max(), received.max())
    return Run(np.stack([sent + received] * 2, 1).astype(float), 8 * busiest / (1e6 * RATE))


def traffic(expected: dict[str, Run], found: dict[str, Run]) -> str:
    """MB a round."""
    rows = []
    for place in PLACES:
        for rank, (guess, carried) in enumerate(
            zip(expected[place].carried / 1e6, found[place].carried / 1e6, strict=True)
        ):
            rows.append([place, str(rank), f"{guess[0]:.2f}", *(f"{way:.2f}" for way in carried)])
    return markdown(["server", "rank", "MB each way, estimated", "sent, measured", "received, measured"], rows)


def times(expected: dict[str, Run], found: dict[str, Run]) -> str:
    rows = [[place, f"{expected[place].exchange:.2f}", f"{found[place].exchange:.2f}"] for place in PLACES]
    return markdown(["server", "s a round, estimated", "measured"], rows)


if __name__ == "__main__":
    main()
