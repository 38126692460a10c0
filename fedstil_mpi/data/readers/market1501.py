"""Market-1501: 1,501 people, 6 cameras.

Zheng, Shen, Tian, Wang, Wang, Tian: Scalable Person Re-identification: A Benchmark. ICCV 2015.

    bounding_box_train/0002_c1s1_000451_03.jpg      person, camera, sequence, frame, box
    bounding_box_test/0001_c1s2_037691_02.jpg
    query/0001_c1s1_001051_00.jpg

Left out are the distractors (0000) and false alarms (-1) of bounding_box_test, and gt_bbox, whose images are those of
the query once more and other crops of the same frames. Time is the sequence, then the frame.
"""

from collections.abc import Iterator
from pathlib import Path

from fedstil_mpi.data.readers import market_style
from fedstil_mpi.data.readers.records import ImageRecord

LAYOUT = market_style.LAYOUT + "0002_c1s1_000451_03.jpg"


def read(root: Path) -> Iterator[ImageRecord]:
    return market_style.read(root, LAYOUT)
