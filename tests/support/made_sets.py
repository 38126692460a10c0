"""Small made-up data sets, named as the originals are, down to what does not belong to anybody.

Every function fills a folder and returns the root to give to its reader. `people` is the number of people that two
cameras see; there are more (see each function). No two images have the same pixels, but for the copies that
`market1501` and `prid2011` are known for.
"""

import csv
import shutil
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def save(root: Path, source: str) -> None:
    """An image of 16 x 8 pixels: coloured squares drawn from its path below the root."""
    path = root / source
    path.parent.mkdir(parents=True, exist_ok=True)
    squares = np.random.default_rng(zlib.crc32(source.encode())).integers(0, 256, (4, 2, 3), np.uint8)
    Image.fromarray(squares.repeat(4, 0).repeat(4, 1)).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))


def copy(root: Path, source: str, to: str) -> None:
    (root / to).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(root / source, root / to)


def write(root: Path, name: str, text: str = "no image") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def market1501(root: Path, people: int = 6, shots: int = 3) -> Path:
    """Even numbers are for training. Person p is seen by cameras p % 6 + 1 and (p + 1) % 6 + 1, in two sequences.

    Of everyone in the test there is a query a camera. False alarms (-1), distractors (0000), gt_bbox with the queries
    once more, and files of other names are there too.
    """
    for person in range(1, people + 1):
        folder = "bounding_box_test" if person % 2 else "bounding_box_train"
        for camera in (person % 6 + 1, (person + 1) % 6 + 1):
            for shot in range(shots):
                # The second sequence has the lower frames.
                sequence, frame = (1, 50000 + 25 * person) if shot % 2 else (2, 151 + 25 * person)
                save(root, f"{folder}/{person:04}_c{camera}s{sequence}_{frame + shot:06}_01.jpg")
            if person % 2:
                query = f"{person:04}_c{camera}s1_{60000 + person:06}_00.jpg"
                save(root, f"query/{query}")
                copy(root, f"query/{query}", f"gt_bbox/{query}")
                save(root, f"gt_bbox/{person:04}_c{camera}s1_{70000 + person:06}_00.jpg")
    save(root, "bounding_box_test/-1_c1s1_000401_03.jpg")
    save(root, "bounding_box_test/0000_c1s1_000151_01.jpg")
    for name in ("bounding_box_train/Thumbs.db", "query/0001_c1s1_060001_00.jpg.bak", "readme.txt"):
        write(root, name)
    write(root, "bounding_box_train/x0002_c1s1_000451_03.jpg")
    write(root, "bounding_box_train/0002_c1s1_000451_03xjpg")
    return root


def personx(root: Path, people: int = 6, shots: int = 3) -> Path:
    """Even numbers are for training. Everyone is seen by cameras 1 and 12; the last number is the viewpoint."""
    for person in range(1, people + 1):
        folder = "bounding_box_test" if person % 2 else "bounding_box_train"
        for camera in (1, 12):
            for shot in range(shots):
                save(root, f"{folder}/{person:04}_c{camera}s1_{shot + 1:02}.jpg")
            if person % 2:
                save(root, f"query/{person:04}_c{camera}s1_36.jpg")
    write(root, "readme.txt")
    return root


def msmt17(root: Path, people: int = 6, shots: int = 3) -> Path:
    """Half of the people for training and half for testing, both numbered from 0000, at cameras 1 and 14."""
    for split, count in (("train", (people + 1) // 2), ("test", people // 2)):
        for person in range(count):
            for index in range(2 * shots):
                save(root, f"bounding_box_{split}/{person:04}_c{(1, 14)[index // shots]}_{index:04}.jpg")
            if split == "test":
                save(root, f"query/{person:04}_c1_{2 * shots:04}.jpg")
                save(root, f"query/{person:04}_c14_{2 * shots + 1:04}.jpg")
    (root / "query").mkdir(exist_ok=True)
    write(root, "bounding_box_train/0000_c100_0000.jpg")
    write(root, "list_train.txt")
    return root


def cuhk03(root: Path, people: int = 6, shots: int = 3) -> Path:
    """Half of the people in train and half in val, both numbered from 0000; at most five shots a camera."""
    for split, count in (("train", (people + 1) // 2), ("val", people // 2)):
        for person in range(count):
            for shot in range(shots):
                save(root, f"{split}/{person:04}_{shot:02}.jpg")
                save(root, f"{split}/{person:04}_{shot + 5:02}.jpg")
        write(root, f"{split}/0000_00.jpg~")
    return root


def prid2011(root: Path, people: int = 6, shots: int = 3) -> Path:
    """The first people at both cameras; 0200 at both too, and two different people 0201, each at one."""
    for camera in ("cam_a", "cam_b"):
        for person in (*range(1, people), 200, 201):
            for shot in range(1, shots + 1):
                save(root, f"multi_shot/{camera}/person_{person:04}/{shot:04}.png")
            copy(
                root,
                f"multi_shot/{camera}/person_{person:04}/0001.png",
                f"single_shot/{camera}/person_{person:04}.png",
            )
    write(root, "multi_shot/cam_a/person_0001/Thumbs.db")
    write(root, "multi_shot/cam_a/readme.txt")
    write(root, "readme.txt")
    return root


def pku(root: Path, people: int = 6, shots: int = 8) -> Path:
    """Everyone at both cameras, in up to nine orientations."""
    for person in range(1, people + 1):
        for camera in (1, 2):
            for shot in range(1, shots + 1):
                save(root, f"{person:03}_{camera:02}_{shot}.png")
    write(root, "README.md")
    return root


def ethz(root: Path, people: int = 6, shots: int = 3) -> Path:
    """A third of the people in each sequence, numbered from p001. There is one camera only."""
    for sequence in (1, 2, 3):
        (root / f"seq{sequence}").mkdir(parents=True, exist_ok=True)
        for person in range(1, (people + 3 - sequence) // 3 + 1):
            for shot in range(shots):
                frame = 100 * person + shot
                save(root, f"seq{sequence}/p{person:03}/frame{frame:04}Person{person:02}.png")
    write(root, "seq1/p001/frame0001Person01.txt")
    write(root, "Readme.txt")
    return root


def folder(root: Path, people: int = 6, shots: int = 3) -> Path:
    """Everyone at the cameras "front door" and "lift"; images of all kinds of suffixes."""
    for camera in ("front door", "lift"):
        for person in range(1, people + 1):
            for shot in range(shots):
                save(root, f"{camera}/person {person}/{shot}{('.png', '.JPG', '.jpeg', '.bmp')[shot % 4]}")
    write(root, "front door/person 1/.DS_Store")
    write(root, "lift/notes.txt")
    write(root, "LICENSE")
    return root


def csv_table(root: Path, people: int = 6, shots: int = 3) -> Path:
    """Everyone at the cameras "door" and "lift", in list.csv, the later numbers first. Beside it an image not listed."""
    rows = [
        (f"images/{camera}/{person}_{shot}.png", f"person {person}", camera, 100 * (people - person) + shot)
        for camera in ("door", "lift")
        for person in range(1, people + 1)
        for shot in range(shots)
    ]
    for source, *_ in rows:
        save(root, source)
    save(root, "images/door/nobody.png")
    with (root / "list.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "person", "camera", "time"), *rows])
    return root / "list.csv"


MAKERS = {
    "csv": csv_table,
    "cuhk03": cuhk03,
    "ethz": ethz,
    "folder": folder,
    "market1501": market1501,
    "msmt17": msmt17,
    "personx": personx,
    "pku": pku,
    "prid2011": prid2011,
}
"""Name of a set -> what makes it."""
