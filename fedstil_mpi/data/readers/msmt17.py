"""MSMT17 in the layout of Market-1501: 4,101 people, 15 cameras.

Wei, Zhang, Gao, Tian: Person Transfer GAN to Bridge Domain Gap for Person Re-Identification. CVPR 2018.

    bounding_box_train/0000_c1_0002.jpg      person, camera, number of the person's image
    bounding_box_test/0000_c14_0030.jpg
    query/0000_c1_0000.jpg

People for training and for testing are both numbered from 0000, which is a person here, and are different people:
their keys are train/0000 and test/0000. The last number counts a person's images: the names give no time.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from fedstil_mpi.data.readers import market_style
from fedstil_mpi.data.readers.records import ImageRecord, files

LAYOUT = market_style.LAYOUT + "0000_c14_0030.jpg"
SPLITS = {"bounding_box_train": "train", "bounding_box_test": "test", "query": "test"}
"""Folder -> whose numbers its names have."""

NAME = re.compile(r"([0-9]{4})_c([0-9]{1,2})_[0-9]{4}\.jpg")


def read(root: Path) -> Iterator[ImageRecord]:
    for folder, split in SPLITS.items():
        for source, match in files(root, folder, NAME, LAYOUT):
            yield ImageRecord(root / source, source, f"{split}/{match[1]}", match[2], None)
