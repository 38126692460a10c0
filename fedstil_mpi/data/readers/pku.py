"""PKU-Reid: 114 people, two cameras, eight orientations each.

Ma, Liu, Hu, Wang, Sun: Orientation driven bag of appearances for person re-identification. arXiv:1605.02464, 2016.

    001_01_1.png      person, camera, orientation

The names give no time.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from fedstil_mpi.data.readers.records import ImageRecord, files

LAYOUT = "images such as 001_01_1.png (person, camera, orientation)"
NAME = re.compile(r"([0-9]{3})_([0-9]{2})_([0-9])\.png")


def read(root: Path) -> Iterator[ImageRecord]:
    for source, match in files(root, ".", NAME, LAYOUT):
        yield ImageRecord(root / source, source, match[1], match[2], None)
