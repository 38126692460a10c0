import csv
import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fedstil_mpi.data.commands import tables
from fedstil_mpi.data.inspection import contact_sheet
from fedstil_mpi.data.inspection.counts import Counts, count
from fedstil_mpi.data.inspection.folder import read_folder
from fedstil_mpi.data.inspection.overlaps import Overlap, overlaps
from fedstil_mpi.data.pack.manifest import COLUMNS, ROLES, Manifest, Plan, Selection
from fedstil_mpi.data.streams.base import Images, Stream, Task

SPLITS = ("train", "query", "gallery")


def made_plan(images, clients=2, tasks=1, galleries=None):
    """A plan of images, each (client, task, role, person, camera, content); galleries: rows, by number of the task."""
    client, task, role, person, camera, content = zip(*images, strict=True)
    role = np.array([ROLES.index(name) for name in role], np.uint8)
    number = np.array(client) * tasks + np.array(task)
    hashes = np.zeros((len(images), 32), np.uint8)
    hashes[:, -1] = content  # so that all of a hash has to be compared
    manifest = Manifest(
        np.array(client),
        np.array(task),
        role,
        np.array(person),
        np.array(camera),
        tuple(f"set/{row}.jpg" for row in range(len(images))),
        np.zeros_like(hashes),
        hashes,
    )
    rows = {
        split: [np.flatnonzero((role == ROLES.index(split)) & (number == n)) for n in range(clients * tasks)]
        for split in SPLITS
    }
    if galleries:
        rows["gallery"] = [np.array(of_task, int) for of_task in galleries]
    splits = {s: Selection(np.concatenate(rows[s]), np.cumsum([0, *map(len, rows[s])])) for s in SPLITS}
    return Plan(clients, tasks, manifest, splits)


SOUND = [
    # client, task, role, person, camera, content
    (0, 0, "train", 1, 7, 10),
    (0, 0, "train", 1, 7, 11),
    (0, 0, "train", 2, 8, 12),
    (0, 0, "query", 1, 7, 13),
    (0, 0, "query", 3, 9, 14),
    (0, 0, "gallery", 1, 7, 15),
    (1, 0, "train", 1, -1, 16),
    (1, 0, "gallery", 1, -1, 17),
    (-1, -1, "warmup", 1, 0, 18),
]


def test_counts_are_of_different_people_images_and_cameras():
    plan = made_plan(SOUND, galleries=[[5, 7], [7, 7]])
    assert count(plan, [0]) == Counts(trained=2, searched=2, train=3, query=2, gallery=2, cameras=3)
    assert count(plan, [1]) == Counts(trained=1, searched=0, train=1, query=0, gallery=1, cameras=0)
    # Person 1 and image 7 are at both clients.
    assert count(plan, [0, 1]) == Counts(trained=2, searched=2, train=4, query=2, gallery=2, cameras=3)


def test_a_sound_stream_has_no_overlap():
    assert overlaps(made_plan(SOUND)) == []


@pytest.mark.parametrize(("one", "other"), [(0, 3), (6, 3), (0, 5), (6, 5), (0, 7), (4, 5), (3, 7), (8, 3), (8, 7)])
def test_an_image_in_two_splits_is_found_at_any_client(one, other):
    images = [(*image[:5], SOUND[one][5]) if row == other else image for row, image in enumerate(SOUND)]
    splits = SOUND[one][2], SOUND[other][2]
    expected = Overlap(splits, 1, (f"set/{one}.jpg", f"set/{other}.jpg"))
    assert overlaps(made_plan(images)) == [expected]


def test_a_stored_image_may_be_chosen_twice_but_not_for_two_splits():
    assert overlaps(made_plan(SOUND, galleries=[[5, 7], [7, 5]])) == []
    (found,) = overlaps(made_plan(SOUND, galleries=[[5, 7], [0, 7]]))
    assert (found.splits, found.images) == (("train", "gallery"), 1)


def test_equal_images_within_a_split_are_counted_once():
    images = [(*image[:5], 10) if row in (0, 1, 3, 4) else image for row, image in enumerate(SOUND)]
    assert overlaps(made_plan(images)) == [Overlap(("train", "query"), 1, ("set/0.jpg", "set/3.jpg"))]


def test_the_headline_counts_the_servers_images_apart():
    # Warm-up people and cameras have numbers of their own, here those of others.
    assert tables.headline(made_plan(SOUND)) == (
        "8 images of 3 people by 3 known cameras, 2 clients x 1 tasks, 1 warm-up images"
    )
    assert tables.headline(made_plan(SOUND[:6])) == "6 images of 3 people by 3 cameras, 2 clients x 1 tasks"
    assert "by unknown cameras" in tables.headline(made_plan([SOUND[6]]))


# Folders.


@pytest.fixture
def tree(tmp_path):
    """Two clients, one task, two people; every image has a grey of its own."""
    grey = 0
    for client in range(2):
        for split in SPLITS:
            for person in (3, 14):
                folder = tmp_path / f"task-{client}-0" / split / str(person)
                folder.mkdir(parents=True)
                for number in range(2):
                    grey += 10
                    Image.new("RGB", (4, 8), (grey, grey, grey)).save(folder / f"c{client}_{number}.png")
    return tmp_path


def test_a_folder_is_read_as_a_plan(tree):
    stream, plan, unreadable = read_folder(tree, 8, 4, threads=2)
    assert (stream.clients, plan.clients, plan.tasks, unreadable) == (2, 2, 1, [])
    assert count(plan, [1]) == Counts(trained=2, searched=2, train=4, query=4, gallery=4, cameras=1)
    assert count(plan, [0, 1]) == Counts(trained=2, searched=2, train=8, query=8, gallery=8, cameras=2)
    assert overlaps(plan) == []
    for number in range(2):
        task = stream.task(number, 0)
        for split in SPLITS:
            rows = plan.splits[split].of(number)
            assert plan.manifest.person[rows].tolist() == getattr(task, split).pids.tolist()
            assert {ROLES[role] for role in plan.manifest.role[rows]} == {split}
    assert plan.manifest.source[0] == "task-0-0/train/3/c0_0.png"


def test_a_copy_by_another_name_is_found(tree):
    Image.open(tree / "task-0-0/train/3/c0_1.png").save(tree / "task-1-0/query/14/other.bmp")
    _, plan, _ = read_folder(tree, 8, 4, threads=1)
    example = ("task-0-0/train/3/c0_1.png", "task-1-0/query/14/other.bmp")
    assert overlaps(plan) == [Overlap(("train", "query"), 1, example)]


def test_unreadable_files_are_listed_and_left_out(tree):
    broken = tree / "task-0-0/query/3/broken.png"
    broken.write_bytes((tree / "task-0-0/train/3/c0_1.png").read_bytes()[:40])
    _, plan, (problem,) = read_folder(tree, 8, 4, threads=1)
    assert problem.startswith(f"{broken} cannot be read as an image")
    assert count(plan, [0]).query == 4
    assert len(plan.manifest) == 24


def test_a_split_without_images(tree):
    for person in (3, 14):
        for file in (tree / "task-1-0/query" / str(person)).iterdir():
            file.unlink()
    _, plan, _ = read_folder(tree, 8, 4, threads=1)
    assert count(plan, [1]) == Counts(trained=2, searched=0, train=4, query=0, gallery=4, cameras=1)


def test_the_manifest_as_csv(tree, tmp_path):
    _, plan, _ = read_folder(tree, 8, 4, threads=1)
    plan.manifest.write_csv(tmp_path / "manifest.csv")
    with (tmp_path / "manifest.csv").open(newline="") as file:
        header, first, *_ = list(csv.reader(file))
    assert tuple(header) == COLUMNS
    assert first[:6] == ["0", "0", "train", "3", "0", "task-0-0/train/3/c0_0.png"]
    assert first[7] == plan.manifest.pixels_sha256[0].tobytes().hex()


def test_a_name_that_is_not_utf_8_is_escaped_in_the_manifest(tree, tmp_path):
    _, plan, _ = read_folder(tree, 8, 4, threads=1)
    named = replace(plan.manifest, source=[os.fsdecode(b"task-0-0/\xff.png"), *plan.manifest.source[1:]])
    named.write_csv(tmp_path / "manifest.csv")
    assert r"task-0-0/\udcff.png" in (tmp_path / "manifest.csv").read_text(encoding="utf-8")


# The contact sheet.

COLOURS = {"train": (200, 0, 0), "query": (0, 200, 0), "gallery": (0, 0, 200)}
ELSEWHERE = (0, 100, 200)
"""What another camera sees of a person."""


class Plain(Stream):
    """People 0 to 3: everyone's images in a split have one colour; person 0 has no query, person 3 no training image.

    The gallery begins with what the query's own camera took.
    """

    def __init__(self, clients, tasks):
        self.clients, self.tasks = clients, tasks

    def task(self, client, task):
        return Task(
            self.images("train", [0, 1, 2]),
            self.images("query", [1, 2, 3]),
            Images(
                np.concatenate([self.images("gallery", [1]).pixels, np.full((1, 16, 8, 3), ELSEWHERE, np.uint8)]),
                np.array([1, 1]),
                np.array([0, 5]),
            ),
        )

    def images(self, split, pids):
        pixels = np.full((len(pids), 16, 8, 3), COLOURS[split], np.uint8)
        return Images(pixels, np.array(pids), np.zeros(len(pids), np.int64))


def fields(path, colour):
    """How much of the sheet has exactly this colour, in images."""
    pixels = np.asarray(Image.open(path))
    return (pixels == np.array(colour, np.uint8)).all(axis=2).sum() / (contact_sheet.HEIGHT * contact_sheet.HEIGHT // 2)


def test_the_sheet_shows_who_is_trained_on_and_searched_for(tmp_path):
    contact_sheet.draw(Plain(2, 3), tmp_path / "sheet.png")
    found = {colour: fields(tmp_path / "sheet.png", colour) for colour in (*COLOURS.values(), ELSEWHERE)}
    # In each of six tasks: 1 and 2 have training images and queries; then comes 0, who has only the former.
    assert found[COLOURS["train"]] == 6 * 3
    assert found[COLOURS["query"]] == 6 * 2
    # The match that is shown is that of another camera.
    assert found[ELSEWHERE] == 6
    assert found[COLOURS["gallery"]] == 0


def test_a_sheet_of_many_is_not_larger(tmp_path):
    most = contact_sheet.CLIENTS, contact_sheet.TASKS
    contact_sheet.draw(Plain(*most), tmp_path / "all.png")
    contact_sheet.draw(Plain(most[0] + 5, most[1] + 1), tmp_path / "more.png")
    assert Image.open(tmp_path / "more.png").size == Image.open(tmp_path / "all.png").size
    assert fields(tmp_path / "more.png", ELSEWHERE) == most[0] * most[1]
