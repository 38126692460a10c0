"""Small made-up data sets, named as the originals are, down to what does not belong to anybody.

Every function fills a folder and returns the root to give to its reader. `people` is the number of people that two
cameras see; there are more (see each function). No two images have the same pixels, but for the copies that
`market1501` and `prid2011` are known for.
"""

import csv
import shutil
import zlib
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from PIL import Image


def save(root: Path, source: str) -> None:
    """An image of 16 x 8 pixels: coloured squares drawn from its path below the root."""
    path = root / source
    path.parent.mkdir(parents=True, exist_ok=True)
    squares = np.random.default_rng(zlib.crc32(source.encode())).integers(0, 256, (4, 2, 3), np.uint8)
    Image.fromarray(squares.repeat(4, 0).repeat(4, 1)).save(
        path, **({"quality": 95} if path.suffix.lower() == ".jpg" else {})
    )


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


def msmt17_published(root: Path, people: int = 6, shots: int = 3, masked: bool = False) -> Path:
    """As MSMT17 is published: V1, or V2 with masked faces. Half of the people each, numbered from 0000, cameras 1 and 14."""
    lists: dict[str, list[str]] = {name: [] for name in ("train", "val", "query", "gallery")}
    for split, count in (("train", (people + 1) // 2), ("test", people // 2)):
        for person in range(count):
            for index in range(2 * shots):
                moment = ("0113noon", "0303morning", "0303afternoon")[index % 3]
                ending = "_ex" * (index == 1)
                name = f"{person:04}_{index:03}_{(1, 14)[index // shots]:02}_{moment}_{8 + index:04}_0{ending}.jpg"
                save(root, f"{f'mask_{split}_v2' if masked else split}/{person:04}/{name}")
                kind = ("train", "val")[index == 0] if split == "train" else ("gallery", "query")[index % shots == 0]
                lists[kind].append(f"{person:04}/{name} {person}\n")
    for name, lines in lists.items():
        write(root, f"list_{name}.txt", "".join(lines))
    return root


def cuhk03_images(root: Path, people: int = 6, shots: int = 3) -> Path:
    """As others unpack the release: detected and labeled. Two pairs of cameras number their own people."""
    for kind in ("detected", "labeled"):
        for person in range(people):
            for shot in range(shots):
                for view in (0, 1):
                    name = f"{1 + person % 2}_{person // 2 + 1:03}_{view + 1}_{5 * view + shot + 1:02}.png"
                    save(root, f"images_{kind}/{name}")
    return root


def cuhk03_new_protocol(root: Path, people: int = 6, shots: int = 3) -> Path:
    """CUHK03-NP: detected and labeled, in folders as Market-1501's; everyone has a number of their own."""
    for kind in ("detected", "labeled"):
        for folder in ("bounding_box_train", "bounding_box_test", "query"):
            (root / kind / folder).mkdir(parents=True)
        for person in range(1, people + 1):
            for shot in range(1, shots + 1):
                for camera in (1, 2):
                    test = "query" if shot == 1 else "bounding_box_test"
                    folder = test if person % 2 else "bounding_box_train"
                    save(root, f"{kind}/{folder}/{person:04}_c{camera}_{10 * camera + shot}.png")
    return root


def cuhk03_release(root: Path, people: int = 6, shots: int = 3) -> Path:
    """cuhk-03.mat, as MATLAB 7.3 writes it: cells of references, images by columns with the colours apart."""
    root.mkdir(parents=True)
    drawn = np.random.default_rng(0)
    with h5py.File(root / "cuhk-03.mat", "w") as file:
        for kind in ("detected", "labeled"):
            pairs = []
            for pair in range(2):
                cell = file.create_dataset(f"#refs#/{kind}{pair}", (10, (people + 1 - pair) // 2), h5py.ref_dtype)
                for image, person in np.ndindex(cell.shape):
                    there = image % 5 < shots
                    name = f"#refs#/{kind}{pair}_{person}_{image}"
                    squares = drawn.integers(0, 256, (3, 2, 4), np.uint8).repeat(4, 1).repeat(4, 2)
                    file[name] = squares if there else np.zeros(2, np.uint64)
                    cell[image, person] = file[name].ref
                pairs.append(cell.ref)
            file.create_dataset(kind, (1, 2), h5py.ref_dtype)[0] = pairs
    return root


def lpw(root: Path, people: int = 6, shots: int = 3) -> Path:
    """A third of the people in each scene, numbered from 1, by its first two cameras."""
    for scene in (1, 2, 3):
        (root / f"scen{scene}").mkdir(parents=True)
        for person in range(1, (people + 3 - scene) // 3 + 1):
            for view in (1, 2):
                for shot in range(shots):
                    save(root, f"scen{scene}/view{view}/{person}/{100 * person + shot:05}.jpg")
    return root


def randperson(root: Path, people: int = 6, shots: int = 3) -> Path:
    """Everyone by the first camera of two scenes; names as in both releases."""
    for person in range(people):
        for scene in (0, 1):
            for shot in range(shots):
                place = f"c00_s{scene:02}" if person % 2 else f"s{scene:02}_c00"
                save(root, f"{person:06}_{place}_f{264 + shot:06}.jpg")
    return root


def unrealperson(root: Path, people: int = 6, shots: int = 3) -> Path:
    for person in range(people):
        for camera in (1, 22):
            for shot in range(shots):
                save(root, f"images/{person}_c{camera:03}_{78 + shot}.jpg")
    return root


def market_style(root: Path, people: int = 6, shots: int = 3) -> Path:
    """Everyone in the test, by cameras 1 and 2, in several of the namings that follow Market-1501's."""
    for folder in ("bounding_box_train", "query"):
        (root / folder).mkdir(parents=True)
    for person in range(1, people + 1):
        for camera in (1, 2):
            for shot in range(shots):
                ending = (f"c{camera}s1_{shot:06}_01.jpg", f"c{camera}_{shot}.png", f"C{camera}S2_{shot:06}_02.JPG")[
                    shot % 3
                ]
                save(root, f"bounding_box_test/{202304000 + person}_{ending}")
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
    "cuhk03 images": cuhk03_images,
    "cuhk03 new protocol": cuhk03_new_protocol,
    "cuhk03 release": cuhk03_release,
    "ethz": ethz,
    "folder": folder,
    "lpw": lpw,
    "market1501": market1501,
    "market_style": market_style,
    "msmt17": msmt17,
    "msmt17 V1": msmt17_published,
    "msmt17 V2": partial(msmt17_published, masked=True),
    "personx": personx,
    "pku": pku,
    "prid2011": prid2011,
    "randperson": randperson,
    "unrealperson": unrealperson,
}
"""Name of a set, and of its layout where there are several -> what makes it."""
