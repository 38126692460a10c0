"""ETHZ: 146 people in three sequences of one moving camera.

Crops by Schwartz, Davis: Learning Discriminative Appearance-Based Models Using Partial Least Squares. SIBGRAPI 2009;
videos by Ess, Leibe, Van Gool: Depth and Appearance for Mobile Scene Analysis. ICCV 2007.

    seq1/p001/frame0001Person01.png      sequence, person, frame
    seq2/..., seq3/...

Each sequence numbers its own people: their keys are seq1/p001 and seq2/p001. Time is the sequence, then the frame.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from fedstil_mpi.data.readers.records import ImageRecord, files, folders, moment

LAYOUT = "the folders seq1, seq2 and seq3 (each may be empty) with images such as p001/frame0001Person01.png"
CAMERA = "0"
ANYONE = re.compile(r".+")
NAME = re.compile(r"frame([0-9]{4})Person[0-9]{2}\.png")


def read(root: Path) -> Iterator[ImageRecord]:
    for number in (1, 2, 3):
        for person, _ in folders(root, f"seq{number}", ANYONE, LAYOUT):
            for source, match in files(root, person, NAME, LAYOUT):
                yield ImageRecord(root / source, source, person, CAMERA, moment(number, int(match[1])))
