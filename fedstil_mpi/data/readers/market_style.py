"""The layout that Market-1501 introduced and others took over."""

import re
from collections.abc import Iterator
from pathlib import Path

from fedstil_mpi.data.readers.records import ImageRecord, files, moment

FOLDERS = ("bounding_box_train", "bounding_box_test", "query")
"""Not gt_bbox: it holds the queries once more, and other crops of the same frames."""
LAYOUT = "the folders bounding_box_train, bounding_box_test and query (each may be empty) with images such as "
"""What is expected; the name of an image follows."""

# Person, camera, sequence and, in names that go on as Market-1501's do, the frame.
NAME = re.compile(r"([0-9]{4})_c([0-9]{1,2})s([0-9]{1,2})_(?:([0-9]{1,9})_[0-9]{1,4}|[0-9A-Za-z_]+)\.jpg")


def read(root: Path, layout: str) -> Iterator[ImageRecord]:
    """The people of all folders, who keep their number from one to another. 0000 is nobody: distractors."""
    for folder in FOLDERS:
        for source, match in files(root, folder, NAME, layout):
            person, camera, sequence, frame = match.groups()
            if int(person):
                time = None if frame is None else moment(int(sequence), int(frame))
                yield ImageRecord(root / source, source, person, camera, time)
