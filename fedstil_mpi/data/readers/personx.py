"""PersonX: 1,266 rendered people, in the layout of Market-1501; cameras have one or two digits.

Sun, Zheng: Dissecting Person Re-identification from the Viewpoint of Viewpoint. CVPR 2019.

    bounding_box_train/0004_c1s1_01.jpg      person, camera, scene, viewpoint
    bounding_box_test/0001_c12s1_02.jpg
    query/0001_c1s1_32.jpg

The viewpoint is an angle: these names give no time. Where the names go on as those of Market-1501 do
(0001_c1s1_000151_01.jpg), time is the sequence, then the frame.
"""

from collections.abc import Iterator
from pathlib import Path

from fedstil_mpi.data.readers import market_style
from fedstil_mpi.data.readers.records import ImageRecord

LAYOUT = market_style.LAYOUT + "0001_c12s1_33.jpg"


def read(root: Path) -> Iterator[ImageRecord]:
    return market_style.read(root, LAYOUT)
