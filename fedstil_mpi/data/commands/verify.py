"""verify: whether every pixel of a pack is what was packed."""

import argparse
from typing import Any

from fedstil_mpi.data.pack import PackStream, verify
from fedstil_mpi.data.pack.verify import BLOCK
from fedstil_mpi.util import terminal
from fedstil_mpi.util.files import expanded
from fedstil_mpi.util.progress import shown


def add(commands: Any) -> None:
    description = "Hash all pixels of a pack again and compare them with its manifest."
    parser = commands.add_parser("verify", help="whether a pack is as it was written", description=description)
    parser.add_argument("pack", type=expanded)


def run(given: argparse.Namespace) -> None:
    images = verify(given.pack, shown("hashing", len(PackStream(given.pack).plan().manifest), step=BLOCK))
    terminal.show(f"{given.pack}: all {images:,} images are as they were packed")
