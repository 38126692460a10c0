"""MSMT17: 4,101 people, 15 cameras, in the layouts of its versions and in that of Market-1501.

Wei, Zhang, Gao, Tian: Person Transfer GAN to Bridge Domain Gap for Person Re-Identification. CVPR 2018.

    train/0000/0000_000_01_0303morning_0008_0.jpg              V1: person, image, camera, day, time of day, ...
    test/0000/0000_000_14_0113noon_0006_1_ex.jpg
    list_train.txt, list_val.txt, list_query.txt, list_gallery.txt
    mask_train_v2/..., mask_test_v2/..., list_....txt          V2: the same, faces masked
    bounding_box_train/0000_c1_0002.jpg                        as Market-1501: person, camera, number of the image
    bounding_box_test/0000_c14_0030.jpg, query/0000_c1_0000.jpg

People for training and for testing are both numbered from 0000, which is a person here, and are different people:
their keys are train/0000 and test/0000. What the lists name has to be there. Time is the day and the time of day.
"""

import os
import re
from collections.abc import Iterator

from fedstil_mpi.data.files.listing import Tree
from fedstil_mpi.data.readers.named import MARKET
from fedstil_mpi.data.readers.records import ImageRecord, images
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.files import regular_file

LAYOUT = (
    "the folders train and test, or mask_train_v2 and mask_test_v2, with images such as "
    "0000/0000_000_01_0303morning_0008_0.jpg beside list_train.txt and so on, or the folders bounding_box_train, "
    "bounding_box_test and query (each may be empty) with images such as 0000_c14_0030.jpg"
)
PUBLISHED = re.compile(
    r"[0-9]{4}/(?P<person>[0-9]{4})_[0-9]{3}_(?P<camera>[0-9]{2})_(?P<day>[0-9]{4})(?P<part>morning|noon|afternoon)"
    r"_[0-9]+_[0-9]+(?:_ex)?\.(?i:jpg)"
)
PARTS = ("morning", "noon", "afternoon")
REARRANGED = re.compile(r"(?P<person>[0-9]{4})_c(?P<camera>[0-9]{1,2})_[0-9]{4}\.(?i:jpg)")
LISTS = {"train": "train", "val": "train", "query": "test", "gallery": "test"}
"""Name of a list -> whose images it has."""
LARGEST_LIST = 64_000_000


def read(tree: Tree) -> Iterator[ImageRecord]:
    for train, test in (("train", "test"), ("mask_train_v2", "mask_test_v2"), ("mask_train_V2", "mask_test_V2")):
        if os.path.isdir(tree / train):
            yield from _published(tree, {"train": train, "test": test})
            return
    for folder, source, match in images(tree, MARKET, REARRANGED, LAYOUT):
        split = "train" if folder == MARKET[0] else "test"
        yield ImageRecord(tree / source, source, f"{split}/{match['person']}", match["camera"], None)


def _published(tree: Tree, folders: dict[str, str]) -> Iterator[ImageRecord]:
    splits = {folder: split for split, folder in folders.items()}
    found = set()
    for folder, source, match in images(tree, list(splits), PUBLISHED, LAYOUT):
        found.add(source)
        time = 3 * int(match["day"]) + PARTS.index(match["part"])
        yield ImageRecord(tree / source, source, f"{splits[folder]}/{match['person']}", match["camera"], time)
    for name, split in LISTS.items():
        path = tree / f"list_{name}.txt"
        if path.exists():
            for line in regular_file(path, "list of images", LARGEST_LIST).read_text("utf-8", "replace").splitlines():
                if line.strip() and (listed := f"{folders[split]}/{line.split()[0]}") not in found:
                    raise InputError(f"{path} names {listed}, which is not there; expected {LAYOUT}; complete the copy")
