"""Data for runs: build packs of public sets or of any stream, look into them, check them, unpack them.

    python -m fedstil_mpi.data {build,pack,inspect,verify,unpack} --help

Needs neither torch nor MPI. Exit code 2: the input cannot be used, and one line says why.
"""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from fedstil_mpi.config.command_line import Parser, cli_main
from fedstil_mpi.data.commands import build, inspect, pack, unpack, verify

COMMANDS = {"build": build, "pack": pack, "inspect": inspect, "verify": verify, "unpack": unpack}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser("fedstil_mpi.data", "Build, inspect, verify and unpack streams of images.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Subparser)
    for command in COMMANDS.values():
        command.add(commands)

    def run() -> None:
        options = parser.parse_args(arguments)
        with _terminable():
            COMMANDS[options.command].run(options)

    cli_main(run, "interrupted; nothing was written")


class _Subparser(Parser):
    """The parser of one command, called as argparse calls it."""

    def __init__(self, prog: str, description: str):
        super().__init__(prog.removeprefix("python -m "), description)


@contextmanager
def _terminable() -> Iterator[None]:
    """Lets SIGTERM, which batch systems send, end the program by an exception, so that unfinished files are removed."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    main()
