"""Print the run folders that a command writes to, one a line; exit code 2: its config cannot be used.

    python jobs/folders.py run CONFIG [section.key=value ...]
    python jobs/folders.py compare CONFIG [section.key=value ...] [--seeds N ...] [--only LABEL ...] [--no-report]

For the job scripts, which look for the file `complete` in each: a launcher can return 0 although a node has died.
"""

import argparse
from pathlib import Path

from fedstil_mpi import compare, configfile
from fedstil_mpi.comm.guard import INPUT_ERROR, say
from fedstil_mpi.errors import InputError
from fedstil_mpi.results.run_folder import path_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "compare"))
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--resume", action="store_true", help="changes nothing here")
    parser.add_argument("--no-report", action="store_true", help="changes nothing here")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--only", nargs="+")
    try:
        print(*folders(parser.parse_intermixed_args()), sep="\n")
    except InputError as error:
        say(str(error))
        raise SystemExit(INPUT_ERROR) from None


def folders(options: argparse.Namespace) -> list[Path]:
    """Raises InputError where the config cannot be used."""
    if options.command == "run":
        return [path_of(configfile.resolve(configfile.read(options.config, options.overrides)))]
    plan = compare.read(options.config)
    entries = compare.expand(plan, options.config, options.overrides, options.seeds, options.only)
    return [Path(entry.folder) for entry in entries]


if __name__ == "__main__":
    main()
