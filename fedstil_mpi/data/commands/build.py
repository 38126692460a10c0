"""build: public re-identification sets -> a pack."""

import argparse
import re
from pathlib import Path
from typing import Any

from fedstil_mpi.data import readers
from fedstil_mpi.data.building.build import BuildOptions, Summary, build
from fedstil_mpi.data.building.clients import WAYS
from fedstil_mpi.data.building.protocols import PROTOCOLS, Protocol
from fedstil_mpi.data.building.tasks import ORDERS
from fedstil_mpi.data.commands import tables
from fedstil_mpi.util import terminal
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.files import expanded
from fedstil_mpi.util.machine import cores
from fedstil_mpi.util.progress import shown

SIZE = re.compile(r"([0-9]{1,4})x([0-9]{1,4})")
SMALLEST = 8
"""Pixels of a side, as in a config."""
REFERENCE_SHARES = (0.8, 0.1)
"""Train and query share of the reference code."""
MOST_THREADS = 8
"""Unless asked for more, which helps where a network's file system is slow to answer."""
MOST_ASKED = 256
"""Each has a few images in memory."""
NAMED = 5
"""Files that were left out and are named."""


def add(commands: Any) -> None:
    default, protocol = BuildOptions(sets=(), out=Path()), Protocol()
    description = "Build a pack of public re-identification sets. Equal arguments and files give equal bytes."
    parser = commands.add_parser("build", help="public sets -> a pack", description=description)
    option = parser.add_argument
    known = ", ".join(readers.names())
    option(
        "--set",
        required=True,
        action="append",
        metavar="NAME=PATH",
        help=f"once for each set; names: {known}, or a .py file",
    )
    option("--out", required=True, type=expanded, metavar="PACK", help="the new file")
    option("--clients", type=int, metavar="N", help="default: as many as cameras, or as sets with --assign set")
    option("--tasks", type=int, metavar="N", default=default.tasks, help="of each client; default: %(default)s")
    option("--size", default=f"{default.height}x{default.width}", metavar="HxW", help="pixels; default: %(default)s")
    option("--protocol", choices=PROTOCOLS, default=protocol.name, help=HELP_OF_PROTOCOLS)
    option(
        "--split",
        type=float,
        nargs=2,
        metavar=("TRAIN", "QUERY"),
        help=HELP_OF_SPLIT.format(protocol, *REFERENCE_SHARES),
    )
    option("--train-people", type=float, default=protocol.train_people, metavar="SHARE", help=HELP_OF_TRAIN_PEOPLE)
    option("--assign", choices=WAYS, default=default.assign, help=HELP_OF_ASSIGN)
    option("--order", choices=tuple(ORDERS), default=default.order, help=HELP_OF_ORDER)
    option(
        "--mixing",
        type=float,
        nargs=2,
        default=[default.ratio, default.distance],
        metavar=("RATIO", "DISTANCE"),
        help=HELP_OF_MIXING,
    )
    option("--seed", type=int, default=default.seed, metavar="N", help="of all that is drawn; default: %(default)s")
    option("--skip-unreadable", action="store_true", help="leave broken files out, instead of refusing the set")
    option("--follow-links", action="store_true", help="also those that lead out of a set's folder")
    option(
        "--threads", type=int, metavar="N", help=f"that read files; default: as many as cores, at most {MOST_THREADS}"
    )


HELP_OF_PROTOCOLS = (
    "closed: the same people in train and test, other images; open: test people are never trained on; reference_code: the "
    "reference code's, which leaks, for comparison only; default: %(default)s"
)
HELP_OF_SPLIT = "shares of a person's images at a client; default: {0.train} {0.query}, with reference_code {1} {2}"
HELP_OF_TRAIN_PEOPLE = "with open: of the people who could be tested; default: %(default)s"
HELP_OF_ASSIGN = "merge: cameras are merged or cut in two; set: every set is a client; default: %(default)s"
HELP_OF_ORDER = "in which a client sees people; time: from the files' names; default: %(default)s"
HELP_OF_MIXING = (
    "how much people and tasks change places, and how far, as in the reference code; 0 0: not at all; default: "
    f"{BuildOptions.ratio} {BuildOptions.distance}"
)


def run(given: argparse.Namespace) -> None:
    options = _options(given)
    _show(options.out, build(options, shown))


def _options(given: argparse.Namespace) -> BuildOptions:
    """Raises InputError for what cannot be an option."""
    size = SIZE.fullmatch(given.size)
    if not size or min(int(side) for side in size.groups()) < SMALLEST:
        raise InputError(f"--size {given.size}; expected height x width of {SMALLEST} to 9999 pixels, such as 128x64")
    threads = given.threads if given.threads is not None else min(MOST_THREADS, len(cores()))
    if not 1 <= threads <= MOST_ASKED:
        raise InputError(f"--threads {threads}; expected at least 1 and at most {MOST_ASKED}")
    protocol = Protocol()
    train, query = given.split or (
        REFERENCE_SHARES if given.protocol == "reference_code" else (protocol.train, protocol.query)
    )
    ratio, distance = given.mixing
    return BuildOptions(
        sets=tuple(_set(text) for text in given.set),
        out=given.out,
        clients=given.clients,
        tasks=given.tasks,
        height=int(size[1]),
        width=int(size[2]),
        protocol=Protocol(name=given.protocol, train=train, query=query, train_people=given.train_people),
        assign=given.assign,
        order=given.order,
        ratio=ratio,
        distance=distance,
        seed=given.seed,
        skip_unreadable=given.skip_unreadable,
        follow_links=given.follow_links,
        threads=threads,
    )


def _set(text: str) -> tuple[str, Path]:
    name, equals, root = text.partition("=")
    if not (name and equals and root):
        raise InputError(f"--set {text}; expected a set's name and its folder, such as market1501=/data/Market-1501")
    readers.check_name(name)
    return name, expanded(root)


def _show(out: Path, made: Summary) -> None:
    for label, count in made.found.items():
        duplicates = made.duplicates.get(label, 0)
        terminal.show(f"{label}: {count:,} images; duplicates left out: {duplicates:,}")
        for reason, number in made.passed_over[label].items():
            terminal.show(f"{label}: passed over: {number:,} {reason}")
    if made.unreadable:
        named = ", ".join(map(str, made.unreadable[:NAMED])) + ", ..." * (len(made.unreadable) > NAMED)
        terminal.show(f"unreadable files left out: {len(made.unreadable):,} ({named})")
    terminal.console().print(tables.by_client(made.plan))
    rate = sum(made.found.values()) / made.seconds
    ending = f"{made.size / 1e6:,.1f} MB, {made.seconds:.1f} s, {rate:,.0f} images/s"
    terminal.show(f"{out}: {tables.headline(made.plan)}; {ending}")
