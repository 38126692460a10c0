import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedstil_mpi.data.streams.pku import PkuStream
from fedstil_mpi.util.errors import InputError

TASKS = 3
PEOPLE = [1, 2, 3, 5, 8, 13, 14, 20, 21, 22, 30, 31, 32, 33, 40, 41, 42, 100, 101]
"""19, so that the halves differ, and neither 10 nor 9 people make equal tasks with their shift."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Every image has a colour of its own (person, camera, frame), but for person 5, who has a copy of frame 1."""
    folder = tmp_path_factory.mktemp("pku")
    for person in PEOPLE:
        for camera in (1, 2):
            for frame in range(1, 9):
                Image.new("RGB", (4, 8), (person, camera, frame)).save(folder / f"{person:03}_{camera:02}_{frame}.png")
    (folder / "005_01_9.png").write_bytes((folder / "005_01_1.png").read_bytes())
    (folder / "Thumbs.db").write_text("")
    return folder


@pytest.fixture(scope="module")
def made(root):
    return PkuStream(root, height=8, width=4, seed=1, tasks=TASKS)


@pytest.fixture(scope="module")
def real():
    folder = os.environ.get("FEDSTIL_PKU")
    if not folder:
        pytest.skip("the environment variable FEDSTIL_PKU does not name a folder of PKU-Reid")
    return PkuStream(Path(folder), height=32, width=16, seed=1)


@pytest.fixture(params=["made", "real"])
def stream(request):
    return request.getfixturevalue(request.param)


def contents(images):
    return {pixels.tobytes() for pixels in images.pixels}


def all_tasks(stream):
    return [[stream.task(client, task) for task in range(stream.tasks)] for client in range(stream.clients)]


def test_nothing_that_is_trained_on_is_searched(stream):
    tasks = [task for client in all_tasks(stream) for task in client]
    trained = set.union(*(contents(task.train) for task in tasks))
    assert len(trained) == sum(len(task.train) for task in tasks), "an image is in two train splits"
    for task in tasks:
        assert not trained & contents(task.query)
        assert not trained & contents(task.gallery)
        assert not contents(task.query) & contents(task.gallery)


def test_every_person_and_task_is_there(stream):
    sizes = [[len(stream.pids(client, task)) for task in range(stream.tasks)] for client in range(4)]
    assert max(map(max, sizes)) - min(map(min, sizes)) <= 1
    met = [np.concatenate([stream.pids(client, task) for task in range(stream.tasks)]) for client in range(4)]
    for people, sister in zip(met[:2], met[2:], strict=True):
        assert len(set(people)) == len(people), "a person is in two tasks of a client"
        assert set(people) == set(sister)
    assert max(met[0]) < min(met[1]), "the halves are not cut by number"
    assert 0 <= len(met[0]) - len(met[1]) <= 1


def test_splits(stream):
    for client, tasks in enumerate(all_tasks(stream)):
        camera, other, neighbour = (1, 2)[client // 2], (2, 1)[client // 2], (1, 0, 3, 2)[client]
        for number, task in enumerate(tasks):
            own = stream.pids(client, number)
            assert own.dtype == np.int64
            np.testing.assert_array_equal(task.train.pids, np.repeat(own, 5))
            for images, people in (
                (task.query, own),
                (task.gallery, np.union1d(own, stream.pids(neighbour, number))),
            ):
                pids, counts = np.unique(images.pids, return_counts=True)
                np.testing.assert_array_equal(pids, people)
                assert set(counts) <= {2, 3}, "8 images, of which two may be the same, less 5"
            assert set(task.train.cameras) == set(task.query.cameras) == {camera}
            assert set(task.gallery.cameras) == {other}


def test_sister_sees_people_half_a_task_later(stream):
    """The sister sees some of a task's people in the same task and the others in the next one, never earlier."""
    for client in (0, 1):
        for task in range(stream.tasks):
            people = set(stream.pids(client, task))
            now = set(stream.pids(client + 2, task))
            then = set(stream.pids(client + 2, (task + 1) % stream.tasks))
            assert people <= now | then
            assert people & now
            assert people & then


def test_copies_count_once(made):
    """All 3 frames that are not trained on are held out, of person 5 too, who has nine files."""
    for task in all_tasks(made)[0]:
        np.testing.assert_array_equal(task.query.pids, np.repeat(np.unique(task.train.pids), 3))


def test_labels_are_those_of_the_files(made):
    for task in all_tasks(made)[3]:
        for images in (task.train, task.query, task.gallery):
            np.testing.assert_array_equal(images.pixels[:, 0, 0, 0], images.pids)
            np.testing.assert_array_equal(images.pixels[:, 0, 0, 1], images.cameras)


def test_seed_decides(root, made):
    again = PkuStream(root, height=8, width=4, seed=1, tasks=TASKS)
    other = PkuStream(root, height=8, width=4, seed=2, tasks=TASKS)
    for client in range(4):
        for task in range(TASKS):
            one, two = made.task(client, task), again.task(client, task)
            for split in ("train", "query", "gallery"):
                np.testing.assert_array_equal(getattr(one, split).pixels, getattr(two, split).pixels)
                np.testing.assert_array_equal(getattr(one, split).pids, getattr(two, split).pids)
    assert any(not np.array_equal(made.pids(0, task), other.pids(0, task)) for task in range(TASKS))
    # With one task the people are the same for all seeds; which of their images are trained on is not.
    mine, theirs = (PkuStream(root, height=8, width=4, seed=seed, tasks=1).task(0, 0).train for seed in (1, 2))
    np.testing.assert_array_equal(mine.pids, theirs.pids)
    assert contents(mine) != contents(theirs)


def refused(root, message, **options):
    with pytest.raises(InputError, match=message):
        PkuStream(root, **{"height": 8, "width": 4, "seed": 1, "tasks": TASKS, **options})


def test_refused_root(tmp_path):
    refused(tmp_path / "nowhere", r"nowhere cannot be listed \(No such file or directory\)")
    (tmp_path / "001_01_1.png.txt").write_text("")
    (tmp_path / "0001_c1s1_000451_03.png").write_text("")
    refused(tmp_path, "has no image of PKU-Reid")


def test_refused_options(root):
    refused(root, "19 people for 5 tasks: expected at least 20", tasks=5)
    refused(root, "8 different images of person 1 at camera 1: expected more than the 8 train images", train_images=8)
    refused(root, "0 tasks", tasks=0)
    refused(root, "0 train images", train_images=0)


def test_refused_people_and_cameras(tmp_path):
    def save(*names):
        for name in names:
            colour = tuple(int(number) for number in name.removesuffix(".png").split("_"))
            Image.new("RGB", (4, 8), colour).save(tmp_path / name)

    save("001_01_1.png", "001_01_2.png")
    refused(tmp_path, r"has cameras \[1\]")
    save("002_01_1.png", "002_01_2.png", "002_02_1.png", "002_02_2.png")
    refused(tmp_path, "0 different images of person 1 at camera 2", train_images=1)
    save("001_02_1.png", "001_02_2.png", "001_03_1.png")
    refused(tmp_path, r"has cameras \[1, 2, 3\]")


def test_refused_broken_image(tmp_path):
    for person in range(4):
        for camera in (1, 2):
            for frame in (1, 2):
                (tmp_path / f"{person:03}_{camera:02}_{frame}.png").write_text(f"no image, take {frame}")
    stream = PkuStream(tmp_path, height=8, width=4, seed=1, tasks=1, train_images=1)
    with pytest.raises(InputError, match=r"[0-9]{3}_01_[12]\.png cannot be read as an image"):
        stream.task(0, 0)
