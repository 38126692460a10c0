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
from pathlib import Path

from fedstil_mpi.data.readers.records import ImageRecord, files, folders

LAYOUT = (
    "the folders cam_a and cam_b in multi_shot, with images such as person_0001/0001.png, or, where there is no "
    "multi_shot, in single_shot, with images such as person_0001.png"
)
SHARED = 200
"""The last number that means the same person at both cameras."""

PERSON = re.compile(r"person_([0-9]{4})")
SHOT = re.compile(r"[0-9]{4}\.png")
SINGLE_SHOT = re.compile(r"person_([0-9]{4})\.png")


def read(root: Path) -> Iterator[ImageRecord]:
    single = os.path.isdir(root / "single_shot") and not os.path.exists(root / "multi_shot")
    for camera in ("cam_a", "cam_b"):
        for source, number in _single_shots(root, camera) if single else _multi_shots(root, camera):
            person = f"person_{number}" if int(number) <= SHARED else f"{camera}/person_{number}"
            yield ImageRecord(root / source, source, person, camera, None)


def _single_shots(root: Path, camera: str) -> Iterator[tuple[str, str]]:
    """(source, the person's number)."""
    for source, match in files(root, f"single_shot/{camera}", SINGLE_SHOT, LAYOUT):
        yield source, match[1]


def _multi_shots(root: Path, camera: str) -> Iterator[tuple[str, str]]:
    """(source, the person's number)."""
    for folder, match in folders(root, f"multi_shot/{camera}", PERSON, LAYOUT):
        for source, _ in files(root, folder, SHOT, LAYOUT):
            yield source, match[1]
