"""CUHK03: 1,467 people, five pairs of cameras, in every layout in which it is passed on.

Li, Zhao, Xiao, Wang: DeepReID: Deep Filter Pairing Neural Network for Person Re-Identification. CVPR 2014.

    cuhk-03.mat                              the release: see files/matlab.py
    images_detected/1_001_1_01.png           its images as files: pair of cameras, person, camera of the pair, image
    detected/bounding_box_train/0001_c1_1.png, detected/bounding_box_test, detected/query    CUHK03-NP: person, camera
    train/0000_00.jpg, val/0000_07.jpg       person, frame: 00 to 04 from one camera, 05 to 09 from the other

The root is the folder that has these, or one of images_..., detected, labeled, cuhk-03.mat, cuhk-03.mat/labeled. Detected
and labeled images are the same frames cut out twice: of both the detected ones are read. A pair numbers its own
people, and so do train and val: their keys are 1/001 and train/0000. The names give no time.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from fedstil_mpi.data.files import matlab
from fedstil_mpi.data.files.listing import Tree
from fedstil_mpi.data.readers.named import MARKET
from fedstil_mpi.data.readers.records import ImageRecord, images
from fedstil_mpi.util.errors import InputError

LAYOUT = (
    "cuhk-03.mat, or the folders images_detected or images_labeled with images such as 1_001_1_01.png, or detected or labeled "
    "with the folders bounding_box_train, bounding_box_test and query, or the folders train and val (each may be empty) "
    "with images such as 0000_00.jpg"
)
RELEASE = ("cuhk-03.mat", "cuhk03_release/cuhk-03.mat")
KINDS = ("detected", "labeled")
SAME_FRAMES = "kinds of images that show the same frames, cut out otherwise; name that folder as the root to read them"
FRAMES = 5
"""The most of a person at a camera."""

NEW_PROTOCOL = re.compile(r"(?P<person>[0-9]{4})_c(?P<camera>[0-9])_[0-9]{1,4}\.(?i:png|jpg)")
FRAME = re.compile(r"(?P<person>[0-9]{4})_(?P<frame>[0-9]{2})\.(?i:jpg)")


def read(tree: Tree) -> Iterator[ImageRecord]:
    root = tree.root
    if root.suffix == matlab.SUFFIX or root.parent.suffix == matlab.SUFFIX:
        file, wanted = (root, KINDS) if root.suffix == matlab.SUFFIX else (root.parent, (root.name,))
        yield from _matlab(tree, file, wanted)
    elif kind := _only(tree, [f"images_{kind}" for kind in KINDS]):
        yield from _files(tree, kind)
    elif files := [file for place in RELEASE if (file := root / place).is_file()]:
        yield from _matlab(tree, files[0], KINDS)
    elif kind := _only(tree, KINDS) or ("." if (root / MARKET[0]).exists() else None):
        for _, source, match in images(tree, [str(Path(kind, folder)) for folder in MARKET], NEW_PROTOCOL, LAYOUT):
            yield ImageRecord(root / source, source, match["person"], match["camera"], None)
    elif (root / "train").exists() or (root / "val").exists():
        yield from _frames(tree)
    else:
        yield from _files(tree, ".")


def _only(tree: Tree, folders: Sequence[str]) -> str | None:
    """The first of these folders that is there; another one is passed over."""
    there = [folder for folder in folders if (tree / folder).is_dir()]
    if there[1:]:
        tree.passed_over[SAME_FRAMES] += 1
    return there[0] if there else None


def _matlab(tree: Tree, file: Path, kinds: Sequence[str]) -> Iterator[ImageRecord]:
    kind = kinds[0]
    if kinds[1:]:
        tree.passed_over[SAME_FRAMES] += 1
    for name in matlab.names(file, kind):
        if match := matlab.NAME.fullmatch(name):
            yield _paired(file / kind / name, f"{file.name}/{kind}/{name}", match)


def _files(tree: Tree, folder: str) -> Iterator[ImageRecord]:
    for _, source, match in images(tree, [folder], matlab.NAME, LAYOUT):
        yield _paired(tree / source, source, match)


def _paired(path: Path, source: str, match: re.Match[str]) -> ImageRecord:
    return ImageRecord(path, source, f"{match['pair']}/{match['person']}", f"{match['pair']}/{match['camera']}", None)


def _frames(tree: Tree) -> Iterator[ImageRecord]:
    for split, source, match in images(tree, ("train", "val"), FRAME, LAYOUT):
        camera = int(match["frame"]) // FRAMES
        if camera > 1:  # numbered from 01, say: then frame 05 would be taken for the other camera's
            raise InputError(
                f"{tree / source} is frame {match['frame']}: expected 00 to 04 of a person's first camera and 05 to 09 of "
                "the second; rename a person's frames accordingly"
            )
        yield ImageRecord(tree / source, source, f"{split}/{match['person']}", str(camera), None)
