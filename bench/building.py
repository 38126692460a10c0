"""How fast a set becomes a pack, as images a second and relative to copying the same files, as Markdown.

    .venv/bin/python bench/building.py --output bench/building.md
    .venv/bin/python bench/building.py --images 100000 --output bench/building.md

The set is made up: JPEG files of 128x64 pixels named as those of Market-1501.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pages
from PIL import Image

FOLDERS = ("bounding_box_train", "bounding_box_test", "query")
CAMERAS = 6
PEOPLE = 1501

BUILD = """
import sys
from fedstil_mpi.data.__main__ import main
main(sys.argv[1:])
status = open("/proc/self/status").read()
print("peak", status.split("VmHWM:")[1].split()[0])
"""

PAGE = """# Building a pack: images a second

    {command}

{machine}, Python {python}, Pillow {pillow}, {threads} threads; {images:,} made-up JPEG files of {height}x{width}
pixels, {kilobytes:.1f} kB each, in the naming of Market-1501; folders and pack on one local disk of a machine with other
work, files in the page cache.
Copying is `shutil.copy`, one file after the other; building reads, hashes, decodes and scales every file, and writes the
scratch file and the pack. *Memory*: the building process's resident memory at its peak.

| | seconds | images/s | |
| --- | ---: | ---: | ---: |
| copy the files | {copy:.1f} | {copy_rate:,.0f} | 1 |
| build a pack of {size} | {build:.1f} | {build_rate:,.0f} | {ratio:.2f} |

Memory: {peak:.0f} MB. The pack has {pack:,.0f} MB. The last column is the speed relative to copying, measured in the same run.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--size", default="128x64", help="of the pack's images")
    parser.add_argument("--threads", type=int, default=min(8, len(os.sched_getaffinity(0))))
    parser.add_argument("--folder", type=Path, help="where the files are made, on the disk to measure; default: /tmp")
    parser.add_argument("--output", type=Path, help="default: standard output")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        text = page(options, Path(folder))
    pages.show(text, options.output)


def page(options: argparse.Namespace, folder: Path) -> str:
    files = make_set(folder / "set", options.images)
    copying = copy(files, folder / "copy")
    pack = folder / "made.h5"
    building, peak = build(folder / "set", pack, "--size", options.size, "--threads", str(options.threads))
    return PAGE.format(
        **pages.made_by("pillow"),
        threads=options.threads,
        images=options.images,
        height=128,
        width=64,
        size=options.size,
        kilobytes=sum(file.stat().st_size for file in files) / len(files) / 1e3,
        copy=copying,
        copy_rate=len(files) / copying,
        build=building,
        build_rate=len(files) / building,
        ratio=copying / building,
        peak=peak / 1e6,
        pack=pack.stat().st_size / 1e6,
    )


def make_set(root: Path, images: int, height: int = 128, width: int = 64) -> list[Path]:
    """Different images by CAMERAS cameras of up to PEOPLE people, each with 24 images or more; laid out as Market-1501."""
    people = min(PEOPLE, images // 24)
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    generator = np.random.default_rng(0)
    files = []
    for number in range(images):
        person, camera = number % people + 1, number // people % CAMERAS + 1
        coarse = Image.fromarray(generator.integers(0, 256, (height // 8, width // 8, 3), np.uint8))
        content = BytesIO()
        coarse.resize((width, height), Image.Resampling.BILINEAR).save(content, "JPEG", quality=90)
        file = root / FOLDERS[person % 2] / f"{person:04}_c{camera}s1_{number:06}_01.jpg"
        file.write_bytes(content.getvalue())
        files.append(file)
    return files


def copy(files: list[Path], folder: Path) -> float:
    """Seconds."""
    folder.mkdir()
    start = time.perf_counter()
    for file in files:
        shutil.copy(file, folder / file.name)
    return time.perf_counter() - start


def build(root: Path, pack: Path, *arguments: str) -> tuple[float, int]:
    """Seconds, the start of Python included, and the process's largest resident memory in bytes."""
    command = [sys.executable, "-c", BUILD, "build", "--set", f"market1501={root}", "--out", str(pack), *arguments]
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.perf_counter() - start
    return seconds, 1024 * int(done.stdout.split("peak ")[1])


if __name__ == "__main__":
    main()
