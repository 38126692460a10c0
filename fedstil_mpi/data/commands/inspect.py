"""inspect: what a pack or a folder holds, and whether test images leak into training."""

import argparse
from pathlib import Path
from typing import Any

from fedstil_mpi.data.commands import tables
from fedstil_mpi.data.inspection import contact_sheet
from fedstil_mpi.data.inspection.folder import read_folder
from fedstil_mpi.data.inspection.overlaps import overlaps
from fedstil_mpi.data.inspection.remarks import remarks
from fedstil_mpi.data.pack import PackStream
from fedstil_mpi.data.pack.manifest import Plan
from fedstil_mpi.data.streams.base import Stream
from fedstil_mpi.util import terminal
from fedstil_mpi.util.files import atomic, expanded, writable
from fedstil_mpi.util.machine import cores
from fedstil_mpi.util.progress import shown
from fedstil_mpi.util.terminal import say

ANOTHER = "name another file"
SIZE = (128, 64)
"""Height and width at which the files of a folder are compared."""


def add(commands: Any) -> None:
    description = "Count what a pack or a folder of tasks holds, and look for images that are in more than one split."
    parser = commands.add_parser(
        "inspect", help="what a pack or folder holds, and whether it leaks", description=description
    )
    parser.add_argument("path", type=expanded, metavar="PACK-OR-FOLDER")
    parser.add_argument("--camera-pattern", metavar="REGEX", help="of a folder, as data.camera_pattern")
    parser.add_argument("--follow-links", action="store_true", help="in a folder, also those that lead out of it")
    parser.add_argument("--sheet", type=expanded, metavar="PNG", help="draw a few people of each client and task")
    parser.add_argument("--manifest", type=expanded, metavar="CSV", help="write what is known of each image")


def run(given: argparse.Namespace) -> None:
    stream, plan, about = _open(given)
    terminal.console().print(tables.by_task(plan))
    for name, text in about.items():
        terminal.show(f"{name}: {text}")
    terminal.show(f"{given.path}: {tables.headline(plan)}")
    for line in remarks(stream):
        terminal.show(line)
    if not (found := overlaps(plan)):
        terminal.show("no image is in two of train, query and gallery, warm-up images included")
    for overlap in found:
        one, other = overlap.splits
        say(
            f"warning: {overlap.images:,} images are in {one} and in {other}, for example {overlap.example[0]} in {one} "
            f"and {overlap.example[1]} in {other}"
        )
    if given.manifest:
        with writable(given.manifest, ANOTHER), atomic(given.manifest) as path:
            plan.manifest.write_csv(path)
    if given.sheet:
        with writable(given.sheet, ANOTHER), atomic(given.sheet) as path:
            contact_sheet.draw(stream, path)


def _open(given: argparse.Namespace) -> tuple[Stream, Plan, dict[str, str]]:
    """The stream, its plan, and what else is known of it. Warns of files that cannot be read."""
    path: Path = given.path
    if not path.is_dir():
        pack = PackStream(path)
        return pack, pack.plan(), {"images": f"{pack.height}x{pack.width}", **pack.about}
    threads = len(cores())
    how = {"camera_pattern": given.camera_pattern, "follow_links": given.follow_links}
    stream, plan, unreadable = read_folder(path, *SIZE, threads=threads, progress=shown, **how)
    for problem in unreadable:
        say(f"warning: {problem}")
    return stream, plan, {"unreadable files": str(len(unreadable))}
