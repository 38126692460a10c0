"""How fast a core gets a stream's images out of a pack, out of image files, and by a mere copy; prints Markdown.

    OMP_NUM_THREADS=1 .venv/bin/python bench/loading.py

The stream is drawn, and written into a temporary folder as a pack, as PNG and as JPEG files. What is timed is an epoch:
every task of every client once, from files that the system holds in memory. The sources take turns, so that whatever
else the machine does affects all of them. The table has the medians.
"""

import argparse
import tempfile
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from fedstil_mpi.config.synthetic import SyntheticOptions
from fedstil_mpi.data.pack import PackStream
from fedstil_mpi.data.pack.export import write_folder
from fedstil_mpi.data.pack.packing import pack_stream
from fedstil_mpi.data.streams.base import SPLITS, Stream, Task
from fedstil_mpi.data.streams.folder import FolderStream
from fedstil_mpi.data.streams.synthetic import SyntheticStream
from fedstil_mpi.util.tables import markdown

SIZES = ((64, 32), (128, 64), (256, 128))
OPTIONS = SyntheticOptions(warmup_people=0)
TASKS = 2
QUALITY = 90
"""JPEG quality, as Pillow counts it."""
SHORTEST = 0.3
"""Seconds that a source is timed for at least; a fast one passes several epochs in them."""

HEAD = ("images", "source", "images/s", "MB/s", "of the copy's speed")


def epoch(stream: Stream) -> Iterator[Task]:
    """Every task once; the caller should drop one before it takes the next, as a client does."""
    return (stream.task(*cell) for cell in product(range(stream.clients), range(stream.tasks)))


def sources(folder: Path, height: int, width: int) -> tuple[list[np.ndarray], dict[str, Callable[[], Iterator]]]:
    """All pixels of the stream, and an epoch of each source by name."""
    pack, png, jpeg = folder / "pack.h5", folder / "png", folder / "jpeg"
    drawn = SyntheticStream(OPTIONS, 1, tasks=TASKS, height=height, width=width)
    pack_stream(drawn, pack, height=height, width=width, about={})
    packed = PackStream(pack, height, width)
    write_folder(packed, png)
    for path in png.rglob("*.png"):
        copy = (jpeg / path.relative_to(png)).with_suffix(".jpg")
        copy.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(copy, quality=QUALITY)
    kept = [getattr(task, split).pixels for task in epoch(packed) for split in SPLITS]
    pngs, jpegs = (FolderStream(root, height, width) for root in (png, jpeg))
    return kept, {
        "copy in memory": lambda: (array.copy() for array in kept),
        "copy with CRC-32": lambda: (checked(array.copy()) for array in kept),
        "pack": lambda: epoch(packed),
        "PNG files": lambda: epoch(pngs),
        "JPEG files": lambda: epoch(jpegs),
    }


def checked(array: np.ndarray) -> list[int]:
    return [zlib.crc32(image) for image in array]


def seconds(source: Callable[[], Iterator]) -> float:
    """CPU time of one epoch."""
    count, start = 0, time.process_time()
    while (passed := time.process_time() - start) < SHORTEST:
        deque(source(), maxlen=0)
        count += 1
    return passed / count


def rows(height: int, width: int, repeats: int) -> list[tuple[str, ...]]:
    """The table's rows for one size of images."""
    with tempfile.TemporaryDirectory() as folder:
        kept, passes = sources(Path(folder), height, width)
        times: dict[str, list[float]] = {name: [] for name in passes}
        for _ in range(repeats):
            for name, source in passes.items():
                times[name].append(seconds(source))
    images, size = sum(map(len, kept)), sum(array.nbytes for array in kept)
    copy = median(times["copy in memory"])
    return [
        (
            f"{height} x {width}",
            name,
            f"{images / median(taken):,.0f}",
            f"{size / median(taken) / 1e6:,.0f}",
            f"{copy / median(taken):.3f}",
        )
        for name, taken in times.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    print(markdown(HEAD, [row for height, width in SIZES for row in rows(height, width, repeats)], left=2))


if __name__ == "__main__":
    main()
