"""How long runs would take over edge links: seconds from the bytes in their ledgers.

    python -m fedstil_mpi.replay runs/x [runs/y ...] [--link 4g|dsl|lte-m|20Mbit/50ms ...] [--accuracy 50 70]

Every argument is a run folder or holds run folders. Needs neither torch nor MPI. The assumptions: results/reading/links.py.
"""

import argparse
import math
from collections.abc import Sequence

from rich.table import Table

from fedstil_mpi.config.command_line import Parser, cli_main
from fedstil_mpi.report import load
from fedstil_mpi.results.reading import links
from fedstil_mpi.results.reading.links import LINKS, Assumptions
from fedstil_mpi.results.reading.variants import Variant
from fedstil_mpi.results.report import edge_links
from fedstil_mpi.util import terminal
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.files import expanded
from fedstil_mpi.util.tables import plain


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser("fedstil_mpi.replay", "How long runs would take over edge links, from the bytes in their ledgers.")
    parser.add_argument("runs", nargs="+", type=expanded, help="a run folder, or a folder that holds run folders")
    parser.add_argument("--link", nargs="+", default=list(LINKS), help=f"{', '.join(LINKS)}, or such as 20Mbit/50ms")
    parser.add_argument("--server", default="1Gbit", help="rate of the server's link, shared by all clients")
    parser.add_argument("--compute", type=float, default=0.0, metavar="S", help="seconds of a client's local training")
    parser.add_argument("--accuracy", type=float, nargs="+", default=[], metavar="PERCENT", help="when it is reached")
    cli_main(lambda: replay(parser.parse_args(arguments)))


def replay(options: argparse.Namespace) -> None:
    if not (math.isfinite(options.compute) and options.compute >= 0):
        raise InputError(f"--compute {options.compute}; expected seconds, at least 0")
    for accuracy in options.accuracy:
        if not 0 < accuracy <= 100:
            raise InputError(f"--accuracy {accuracy:g}; expected percent, above 0 and at most 100")
    server = links.link(f"{options.server}/0ms").down
    given = {text: Assumptions(links.link(text), server, options.compute) for text in options.link}
    variants = load(options.runs, None).variants
    console = terminal.console()
    for text, assumptions in given.items():
        console.print(_table(text, assumptions, variants, options.accuracy))
    console.print(
        f"Mean over seeds. All clients of a round at once, the server at {options.server}/s; {options.compute:g} s of local "
        "training a round. Without protocol overhead and losses.\n% of the stream: tasks that were not met yet count 0.",
        soft_wrap=True,
    )


def _table(text: str, given: Assumptions, variants: Sequence[Variant], accuracies: Sequence[float]) -> Table:
    table = plain("variant", "n", "s a round", "s in all", *(f"s to {a:g} %" for a in accuracies), left=["variant"])
    table.title = f"{text}: {given.link}"
    table.title_justify = "left"
    for variant in variants:
        numbers = links.totals(variant, given, accuracies)
        table.add_row(variant.label, str(len(variant.runs)), *map(edge_links.seconds, numbers))
    return table


if __name__ == "__main__":
    main()
