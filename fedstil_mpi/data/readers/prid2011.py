"""PRID 2011: 385 people at one camera, 749 at the other, 200 of them at both.

Hirzer, Beleznai, Roth, Bischof: Person Re-Identification by Descriptive and Discriminative Classification. SCIA 2011.

    multi_shot/cam_a/person_0001/0001.png
    multi_shot/cam_b/person_0001/0001.png
    single_shot/cam_a/person_0001.png
    single_shot/cam_b/person_0001.png

The single shots are images of the multi-shot folders once more: they are read only where there is no multi_shot. Up to
200 a number means the same person at both cameras (person_0001); above, it means two (cam_a/person_0201,
cam_b/person_0201). Frames are numbered from 0001 for every person: the names give no time.
"""

import os
import re
from collections.abc import Iterator

from fedstil_mpi.data.files.listing import Tree
from fedstil_mpi.data.readers.records import ImageRecord, images

LAYOUT = (
    "the folders cam_a and cam_b in multi_shot, with images such as person_0001/0001.png, or, where there is no "
    "multi_shot, in single_shot, with images such as person_0001.png"
)
SHARED = 200
"""The last number that means the same person at both cameras."""

MULTI = re.compile(r"person_(?P<number>[0-9]{4})/[0-9]{4}\.(?i:png)")
SINGLE = re.compile(r"person_(?P<number>[0-9]{4})\.(?i:png)")
CAMERAS = ("cam_a", "cam_b")


def read(tree: Tree) -> Iterator[ImageRecord]:
    single = os.path.isdir(tree / "single_shot") and not os.path.exists(tree / "multi_shot")
    shots, name = ("single_shot", SINGLE) if single else ("multi_shot", MULTI)
    for folder, source, match in images(tree, [f"{shots}/{camera}" for camera in CAMERAS], name, LAYOUT):
        camera, number = folder.split("/")[1], match["number"]
        person = f"person_{number}" if int(number) <= SHARED else f"{camera}/person_{number}"
        yield ImageRecord(tree / source, source, person, camera, None)
