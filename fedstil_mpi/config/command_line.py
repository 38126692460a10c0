"""Command lines of the programs: a mistake in one is an InputError like any other, and help needs no MPI."""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import NoReturn

from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.util.errors import DISK_FULL, NOT_STORED, InputError
from fedstil_mpi.util.terminal import NOBODY_READS, nobody_reads, open_output, say, to_nowhere

SECTIONS = frozenset(field.name for field in fields(Experiment))


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake raises InputError instead of printing and leaving, which under MPI every rank would do."""

    def __init__(self, module: str, description: str):
        super().__init__(prog=f"python -m {module}", description=description)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; expected {' '.join(self.format_usage().removeprefix('usage: ').split())}")

    def add_overrides(self, help: str) -> None:
        """Of the config, behind the other arguments."""
        self.add_argument("overrides", nargs="*", metavar="section.key=value", help=help)

    def parse(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:
        """The options; an override is one wherever it stands, also behind an option that takes several values."""
        options = self.parse_intermixed_args(arguments)
        for name, values in vars(options).items():
            if isinstance(values, list) and name != "overrides":
                options.overrides += filter(is_override, values)
                values[:] = [value for value in values if not is_override(value)]
        return options

    def help_first(self, arguments: Sequence[str] | None) -> None:
        """Print the help and leave, where it is asked for, before MPI is started."""
        given = sys.argv[1:] if arguments is None else arguments
        if not {"-h", "--help"}.isdisjoint(given):
            cli_main(lambda: self.parse_args(given))


def is_override(value: object) -> bool:
    """Whether it is of the form section.key=value, with a section, or a key without one, that experiments have."""
    key, equals, _ = str(value).partition("=")
    return bool(equals) and key.partition(".")[0] in SECTIONS


def integer(text: str) -> int | str:
    """One of several numbers of an option, or an override that stands behind them."""
    return text if is_override(text) else int(text)


def cli_main(work: Callable[[], object], interrupted: str = "interrupted") -> None:
    """Do the work of a program without MPI; an InputError becomes its one line on standard error and its exit code.

    interrupted: what is said where the user interrupts it. Where nobody reads its output any more, it ends quietly.
    """
    open_output()
    try:
        try:
            work()
        finally:
            sys.stdout.flush()
        return
    except BrokenPipeError as error:
        if not nobody_reads(error):
            raise
        raise SystemExit(NOBODY_READS) from None
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        to_nowhere(1)  # where it is standard output, Python would try again at its end, and make the exit code 120
        message, code = f"the disk takes no more ({error.strerror}); free space, then again", NOT_STORED
    except InputError as error:
        message, code = str(error), error.code
    except KeyboardInterrupt:
        message, code = interrupted, 128 + signal.SIGINT
    # Only now that the error and its frames are gone has been closed what they held, such as a progress bar.
    say(message)
    raise SystemExit(code)
