"""What a round costs as the number of clients grows, in CPU time and memory, as Markdown.

    .venv/bin/python bench/scale.py --output bench/scale.md

Clients, images and the model cost next to nothing (bench/scale_parts.py); the rounds, the exchange, the server, checkpoints
and the record are those of any run. Times are CPU time, which what else the machine does disturbs little.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import pages

from fedstil_mpi.util.tables import markdown

HERE = Path(__file__).parent
ROUNDS = 8
DRAWN, MANY = 50, 100
"""Clients of a round, in the first table and in the second."""
SCALARS = 80_000
LARGE = 900_000
"""Travelling weights, P; the second is about MobileNetV2's tail for a few hundred people."""

PAGE = """# Scale: a round as the number of clients grows

    {command}

{machine}, Python {python}, torch {torch}, one thread a rank. In a round {drawn} of K clients are drawn (all of 10; below, as
many as it says), each trains for one step of 8 images, and a checkpoint is written after every round. CPU time of all threads, median over rounds 3 to {rounds} of a run
that is evaluated at its end.

## One rank, P = 80,000

*Training*: a client's local step and what it remembers. *Beside*: all else in a round (mixing, messages, ledger, checkpoint,
record), also by client and round.

{one_rank}

Fitted over K by least squares, beside training: {fits}.

## {ranks} ranks, P = 900,000

*rank 0, memory*: the server's rows on rank 0, and models of clients that sit rounds out in memory; *all ranks, files*: what
`auto` does with so many; where all are drawn, a round goes in waves. Peaks are resident memory, libraries that ranks share counted for each; *once*: in the sum of all ranks
counted once (by what `/proc/self/smaps_rollup` says at the end).

{places}

{slower}
"""


class Run(NamedTuple):
    rounds: list[float]
    """CPU seconds of a round, by rank."""
    training: list[float]
    """Of it, training."""
    peaks: list[float]
    """MB, by rank."""
    shared: list[float]
    """MB of it that are counted for other ranks where what ranks share is counted once."""
    set_up: float
    """CPU seconds before the first rounds and after the last, of rank 0."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["fedavg", "fedstil"])
    parser.add_argument("--clients", type=int, nargs="+", default=[10, 100, 1000, 10_000])
    parser.add_argument("--large", type=int, nargs=2, default=[1000, 10_000], help="clients of the second table")
    parser.add_argument("--ranks", type=int, default=6, help="of the second table")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    alone = {(m, k): measure(m, k, SCALARS) for m in options.methods for k in options.clients}
    few, many = options.large
    here, shared = "rank 0, memory", "all ranks, files"
    settings = {here: ["placement.server=rank_0", "placement.away=memory"], shared: []}
    cases = [(few, DRAWN, shared), (few, MANY, here), (few, MANY, shared), (many, MANY, shared), (few, few, shared)]
    places = {case: measure("fedstil", case[0], LARGE, options.ranks, case[1], *settings[case[2]]) for case in cases}
    less, more = (sum(places[clients, MANY, shared].rounds) for clients in options.large)
    page = PAGE.format(
        **pages.made_by("torch"),
        drawn=DRAWN,
        rounds=ROUNDS,
        one_rank=table(alone),
        fits="; ".join(fit(method, alone) for method in options.methods),
        ranks=options.ranks,
        slower=f"With {MANY} drawn a round of {many:,} clients costs {100 * (more / less - 1):+.0f} % of one of {few:,}.",
        places=markdown(
            [
                "K",
                "drawn",
                "where",
                "CPU s a round, rank 0",
                "all ranks",
                "of it training",
                "peak MB, rank 0",
                "the others, each",
                "all",
                "once",
            ],
            [place_row(*case, run) for case, run in places.items()],
        ),
    )
    pages.show(page, options.output)


def measure(method: str, clients: int, scalars: int, ranks: int = 1, drawn: int = DRAWN, *settings: str) -> Run:
    """One run in processes of its own."""
    found = play(method, clients, scalars, ranks, drawn, *settings)
    marks = [np.array(rank["marks"]) for rank in found]  # from round 2 on
    return Run(
        [median(np.diff(of_rank[1:, 0])) for of_rank in marks],
        [median(of_rank[1:-1, 1] - of_rank[1:-1, 0]) for of_rank in marks],
        [rank["peak"] / 1e6 for rank in found],
        [rank["shared"] / 1e6 for rank in found],
        found[0]["cpu"] - (marks[0][-1, 1] - marks[0][0, 0]),
    )


def play(method: str, clients: int, scalars: int, ranks: int, drawn: int, *settings: str) -> list[dict[str, Any]]:
    """What scale_ranks.py says of each rank."""
    python = pages.on_ranks(ranks) if ranks > 1 else [sys.executable]
    environment = os.environ | {"SCALE_LENGTH": str(scalars // clients), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            f"data.synthetic.clients={clients}",
            f"rounds.clients_per_round={min(clients, drawn)}",
            f"rounds.total={ROUNDS}",
            f"rounds.evaluate_every={ROUNDS}",
            f"data.kind={HERE / 'scale_parts.py'}",
            f"model.backbone={HERE / 'scale_parts.py'}",
            f"method.name={method}",
            f"output={folder}",
            *settings,
        ]
        command = [*python, str(HERE / "scale_ranks.py"), str(HERE / "scale.yaml"), *overrides]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(runs: dict[tuple[str, int], Run]) -> str:
    rows = []
    for (method, clients), run in runs.items():
        (whole,), (training,), (peak,) = run[:3]
        drawn = min(clients, DRAWN)
        times = (1000 * training / drawn, 1000 * (whole - training) / drawn)
        rows.append(
            [method, f"{clients:,}", f"{whole:.3f}", *(f"{t:.1f}" for t in times), f"{peak:,.0f}", f"{run.set_up:.0f}"]
        )
    head = [
        "method",
        "K",
        "s a round",
        "training, ms a client-round",
        "beside, ms",
        "peak MB",
        "s of set-up and report",
    ]
    return markdown(head, rows)


def fit(method: str, runs: dict[tuple[str, int], Run]) -> str:
    """Over those with as many drawn."""
    at = [clients for of, clients in runs if of == method and clients >= DRAWN]
    beside = [runs[method, clients].rounds[0] - runs[method, clients].training[0] for clients in at]
    slope, constant = np.polyfit(at, beside, 1)
    more, least = np.polyfit(at, [runs[method, clients].peaks[0] for clients in at], 1)
    return f"{method} {constant:.3f} s + {1e6 * slope:.1f} us x K a round, {least:.0f} MB + {more:.3f} MB x K"


def place_row(clients: int, drawn: int, place: str, run: Run) -> list[str]:
    times = (run.rounds[0], sum(run.rounds), sum(run.training))
    memory = (run.peaks[0], max(run.peaks[1:]), sum(run.peaks), sum(run.peaks) - sum(run.shared))
    return [
        f"{clients:,}",
        f"{drawn:,}",
        place,
        *(f"{time:.2f}" for time in times),
        *(f"{size:,.0f}" for size in memory),
    ]


if __name__ == "__main__":
    main()
