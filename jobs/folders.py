"""Print the run folders that a command writes to, one a line; exit code 2: its config cannot be used.

    python jobs/folders.py run|compare ARGUMENTS-OF-THE-COMMAND

For the job scripts, which look for the file `complete` in each: a launcher can return 0 although a node has died.
"""

import argparse
from pathlib import Path

from fedstil_mpi import compare, run
from fedstil_mpi.config import loading
from fedstil_mpi.config.command_line import cli_main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "compare"))
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    cli_main(lambda: print(*folders(options.command, options.arguments), sep="\n"))


def folders(command: str, arguments: list[str]) -> list[Path]:
    """Raises InputError where the command line or the config cannot be used."""
    if command == "run":
        options = run.command_line().parse(arguments)
        return [loading.resolve(loading.read(options.config, options.overrides)).folder]
    options = compare.command_line().parse(arguments)
    plan = compare.read(options.config, options.overrides)
    entries = compare.expand(plan, options.config, options.overrides, options.seeds, options.only)
    return [Path(entry.folder) for entry in entries]


if __name__ == "__main__":
    main()
