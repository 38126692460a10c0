"""unpack: a pack -> a folder of PNG files."""

import argparse
from typing import Any

from fedstil_mpi.data.pack import PackStream
from fedstil_mpi.data.pack.export import write_folder
from fedstil_mpi.util import terminal
from fedstil_mpi.util.files import expanded
from fedstil_mpi.util.progress import shown


def add(commands: Any) -> None:
    description = "Write task-<client>-<task>/{train,query,gallery}/<person>/<image>.png, which data.kind=folder reads."
    parser = commands.add_parser("unpack", help="a pack -> a folder of PNG files", description=description)
    parser.add_argument("pack", type=expanded)
    parser.add_argument("folder", type=expanded, help="a new folder")


def run(given: argparse.Namespace) -> None:
    stream = PackStream(given.pack)
    write_folder(stream, given.folder, stream.plan(), shown("writing", stream.clients * stream.tasks, "tasks"))
    line = f"{given.folder}: {stream.clients} clients x {stream.tasks} tasks"
    if stream.warmup() is not None:
        line += "; the server's warm-up images stay in the pack, as a folder has no place for them"
    terminal.show(line)
