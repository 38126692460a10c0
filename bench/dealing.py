"""How busy ranks are where clients are dealt to them anew in each round, and where each stays on its rank, as Markdown.

    .venv/bin/python bench/dealing.py --output bench/dealing.md

Clients, images and the model are those of bench/scale.py, with steps enough that training is what takes the time. Times are CPU
time, which what else the machine does disturbs little: a rank is busy as long as it trains, and all wait for the one that trains
longest.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

import numpy as np
import pages
import scale

from fedstil_mpi.util.tables import markdown

HOW = ("fixed", "dealt")
ROUNDS, STEPS, SCALARS = 16, 12, 80_000
SLOW = ("participation.stragglers=0.3", "participation.straggler_effort=0.25")

PAGE = """# Dealing clients to ranks

    {command}

{machine}, Python {python}, torch {torch}, one thread a rank. {ranks} ranks, of which {players} train; FedSTIL, P = {scalars:,}, {steps} steps of
8 images a client-round, {rounds} rounds, each run {turns} times in turns. *busy*: CPU time in training of all these ranks as a share of
what the longest of them takes, times their number. *longest*: that of the longest, in ms. Medians over rounds 3 to {rounds}. *moved*:
clients a round that went from rank to rank with all that there was of them, and MB of each. *beside*: ms of CPU a round, of all
ranks, for all but training.

{table}
"""


class Case(NamedTuple):
    clients: int
    drawn: int
    settings: tuple[str, ...] = ()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=6)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    cases = [Case(200, 10), Case(200, 50), Case(200, 50, SLOW), Case(1000, 50)]
    found = defaultdict(list)
    for case in cases:
        for _ in range(options.turns):
            for how in HOW:
                found[case, how].append(measure(case, how, options.ranks))
    rows = [row(case, how, found[case, how]) for case in cases for how in HOW]
    page = PAGE.format(
        **pages.made_by("torch"),
        ranks=options.ranks,
        players=options.ranks - 1,
        scalars=SCALARS,
        steps=STEPS,
        rounds=ROUNDS,
        turns=options.turns,
        table=markdown(["K", "drawn", "clients", "busy", "longest", "moved", "MB each", "beside"], rows),
    )
    pages.show(page, options.output)


def measure(case: Case, how: str, ranks: int) -> tuple[float, ...]:
    """Busy share, ms of the longest rank, clients moved a round, MB of each, ms of CPU beside training."""
    settings = (f"train.steps={STEPS}", f"rounds.total={ROUNDS}", f"rounds.evaluate_every={ROUNDS}")
    found = scale.play(
        "fedstil", case.clients, SCALARS, ranks, case.drawn, *settings, f"placement.clients={how}", *case.settings
    )
    marks = np.array([rank["marks"] for rank in found])
    training = (marks[:, :, 1] - marks[:, :, 0])[1:, 2:]
    rounds = np.diff(marks[:, 2:, 0]).sum(0)
    parcels = [size for rank in found for size in rank["parcels"]]
    return (
        median(training.sum(0) / (len(training) * training.max(0))),
        1000 * median(training.max(0)),
        len(parcels) / ROUNDS,
        mean(parcels) / 1e6 if parcels else 0.0,
        1000 * median(rounds - training.sum(0)[:-1]),
    )


def row(case: Case, how: str, runs: list[tuple[float, ...]]) -> list[str]:
    busy, longest, moved, size, beside = map(mean, zip(*runs, strict=True))
    clients = f"{how}, 3 in 10 slow" if case.settings else how
    return [
        f"{case.clients:,}",
        f"{case.drawn}",
        clients,
        f"{100 * busy:.0f} %",
        f"{longest:.0f}",
        f"{moved:.1f}",
        f"{size:.2f}",
        f"{beside:.0f}",
    ]


if __name__ == "__main__":
    main()
