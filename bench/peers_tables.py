"""What the runs of bench/peers.py come to, as its page."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from fedstil_mpi.util.tables import markdown

BEGINNING, LATER = (6, 46), (301, 341)
"""CPU time is read at the beginning of these rounds."""

EARLY = 3
"""Rounds in which rounding has not grown yet."""

PAGE = """# Beside peers: a client-round of FedAvg

    {command}

{machine}, Python {python}, torch {torch}; {versions}. One thread each.

All programs play the same rounds: the same features and labels, the same start, the same clients drawn. A client trains a batch norm
without parameters and a classifier of 512 features (P = 512 x people weights, which travel) on its 8 samples. *CPU*: user's and system's
time of all processes that a program has started, Ray's too, between the beginnings of two rounds, by client and round, so that
set-up, the evaluation at the end and results are outside; the median of runs in turns, {repeats} of each. *Ratio*: to this program in the same
rounds.

{times}

In rounds {beginning} most clients are new: this program makes the side and the model of each. In rounds {later} nearly all have been
drawn before. The peers keep nothing of a client and do the same in all rounds: how far a peer's two numbers lie apart is how far this
machine can be trusted.

## What each was set to, and says of itself

{settings}

{keeps}

Flower's client is as lean as it can be: data and one model stay in its one worker, and are used for all clients.

## The same work

Loss before a client's step, mean over the clients of a round or of {last} rounds, and the largest difference of a round's from this program's,
in the rounds that all have played. Adam's first step goes by the signs of the gradient, of which those of the smallest depend on rounding:
what differs in the seventh digit at first grows from round to round.

{losses}
{missing}"""


class Program(NamedTuple):
    name: str
    script: str
    requirement: str | None
    """For pip; None: it is installed where this is."""
    keeps: str


class Run(NamedTuple):
    cpu: dict[int, float]
    """Seconds, at the beginning of some rounds."""
    losses: list[float]
    """By round: mean over its clients, before they train."""
    settings: dict[str, Any]
    """As the program has resolved them."""


Runs = Mapping[tuple[int, Program], Sequence[Run]]
"""By number of people; this program's first."""


def page(runs: Runs, missing: Mapping[str, str], **made_by: str) -> str:
    """missing: peers that could not be installed -> why."""
    last = 10
    return PAGE.format(
        **made_by,
        repeats=len(next(iter(runs.values()))),
        beginning=f"{BEGINNING[0]} to {BEGINNING[1] - 1}",
        later=f"{LATER[0]} to {LATER[1] - 1}",
        times=times(runs),
        settings=settings(runs),
        keeps="\n".join(f"- {program.name} keeps {program.keeps}." for program in dict.fromkeys(p for _, p in runs)),
        last=last,
        losses=losses(runs, last),
        missing="".join(f"\n{name} is left out: {why}\n" for name, why in missing.items()),
    )


def per_client_round(run: Run, rounds: tuple[int, int]) -> float:
    """CPU milliseconds."""
    first, end = rounds
    return 1000 * (run.cpu[end] - run.cpu[first]) / ((end - first) * run.settings["drawn"])


def times(runs: Runs) -> str:
    """A row for each program and number of weights."""
    own = next(program for _, program in runs)
    rows = []
    for (people, program), of_case in runs.items():
        row = [program.name, f"{of_case[0].settings['travelling weights']:,}"]
        for rounds in (BEGINNING, LATER):
            took, ours = (
                median(per_client_round(run, rounds) for run in some) for some in (of_case, runs[people, own])
            )
            row += [f"{took:.2f}", f"{took / ours:.2f}"]
        rows.append(row)
    head = ["program", "P"]
    for first, end in (BEGINNING, LATER):
        head += [f"CPU ms, rounds {first} to {end - 1}", "ratio"]
    return markdown(head, rows)


def settings(runs: Runs) -> str:
    """A column for each program, of its run with the fewest people, in which only P differs from the others."""
    fewest = min(people for people, _ in runs)
    columns = {program.name: of_case[0].settings for (people, program), of_case in runs.items() if people == fewest}
    keys = next(iter(columns.values()))
    return markdown(["", *columns], [[key, *(str(found[key]) for found in columns.values())] for key in keys])


def losses(runs: Runs, last: int) -> str:
    """last: rounds over which a mean is taken."""
    common = min(len(of_case[0].losses) for of_case in runs.values())
    own = {people: of_case[0] for (people, _), of_case in reversed(runs.items())}  # the first of each number stays
    rows = []
    for (people, program), of_case in runs.items():
        found, ours = (np.array(run.losses[:common]) for run in (of_case[0], own[people]))
        differences = np.abs(found - ours)
        means = (found[0], found[-last:].mean())
        largest = (differences[:EARLY].max(), differences.max())
        rows.append([program.name, f"{people:,}", *(f"{loss:.4f}" for loss in means), *(f"{d:.0e}" for d in largest)])
    head = ["program", "people", "loss, round 1", f"rounds {common - last + 1} to {common}"]
    return markdown([*head, f"largest difference, rounds 1 to {EARLY}", "all"], rows)
