"""CUHK03 as image files: 1,467 people, two cameras each.

Li, Zhao, Xiao, Wang: DeepReID: Deep Filter Pairing Neural Network for Person Re-Identification. CVPR 2014.

    train/0000_00.jpg      person, frame
    val/0000_07.jpg

Each folder numbers its own people: their keys are train/0000 and val/0000. Frames 00 to 04 are from one camera, 05 to
09 from the other. A frame's number only counts a person's images: the names give no time.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from fedstil_mpi.data.readers.records import ImageRecord, files
from fedstil_mpi.util.errors import InputError

LAYOUT = "the folders train and val (each may be empty) with images such as 0000_00.jpg"
FRAMES = 5
"""The most of a person at a camera."""

NAME = re.compile(r"([0-9]{4})_([0-9]{2})\.jpg")


def read(root: Path) -> Iterator[ImageRecord]:
    for split in ("train", "val"):
        for source, match in files(root, split, NAME, LAYOUT):
            camera = int(match[2]) // FRAMES
            if camera > 1:  # numbered from 01, say: then frame 05 would be taken for the other camera's
                raise InputError(
                    f"{root / source} is frame {match[2]}: expected 00 to 04 of a person's first camera and 05 to 09 of "
                    "the second; rename a person's frames accordingly"
                )
            yield ImageRecord(root / source, source, f"{split}/{match[1]}", str(camera), None)
