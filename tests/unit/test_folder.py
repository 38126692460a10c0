import numpy as np
import pytest
from PIL import Image

from fedstil_mpi.data.files.images import read
from fedstil_mpi.data.files.listing import BESIDE, HIDDEN, LEADS_NOWHERE, LEADS_OUT, OTHER_FOLDER
from fedstil_mpi.data.streams.folder import FolderStream
from fedstil_mpi.util.errors import InputError


def save(path, color=(10, 20, 30), size=(4, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


@pytest.fixture
def tree(tmp_path):
    """Two clients of two tasks. Person ids in an order that differs between numbers and strings."""
    root = tmp_path / "tree"
    for client in range(2):
        for task in range(2):
            folder = root / f"task-{client}-{task}"
            for person in (10, 9, 2 + client):
                save(folder / "train" / str(person) / f"{person:04}_c{client}s1_000451_03.png", (person, client, task))
                save(folder / "train" / str(person) / f"{person:04}_c{client}s1_000007_00.png", (person, client, 100))
                save(folder / "query" / str(person) / f"{person}.png", (person, 0, task))
            save(folder / "gallery" / "9" / "0009_c12_0001.png", (9, 1, task))
    return root


def refused(root, message):
    with pytest.raises(InputError, match=message):
        FolderStream(root, 8, 4)


def test_task(tree):
    stream = FolderStream(tree, 8, 4)
    assert (stream.clients, stream.tasks) == (2, 2)
    task = stream.task(1, 0)
    assert task.train.pixels.dtype == np.uint8
    assert task.train.pids.dtype == task.train.cameras.dtype == np.int64
    assert task.train.pixels.shape == (6, 8, 4, 3)
    # Sorted by person as a number, then by name: 000007 before 000451.
    assert task.train.pixels[:, 0, 0].tolist() == [[p, 1, t] for p in (3, 9, 10) for t in (100, 0)]
    assert task.train.pids.tolist() == [3, 3, 9, 9, 10, 10]
    assert task.train.cameras.tolist() == [1] * 6
    assert task.query.cameras.tolist() == [-1] * 3
    assert (task.gallery.pids.tolist(), task.gallery.cameras.tolist()) == ([9], [12])


def test_people_need_no_decoding(tree):
    for path in tree.rglob("*.png"):
        path.write_bytes(b"no image")
    stream = FolderStream(tree, 8, 4)
    people = stream.pids(0, 1)
    assert (people.dtype, people.tolist()) == (np.int64, [2, 9, 10])
    with pytest.raises(InputError, match=r"task-0-1/train/2/.*cannot be read as an image"):
        stream.task(0, 1)


def test_what_is_ignored_and_what_may_be_empty(tree):
    (tree / "README.md").write_text("about this data")
    (tree / "task-0-0" / "train" / ".DS_Store").write_text("")
    (tree / "task-0-0" / "train" / "9" / "._0009.png").write_text("")
    (tree / "task-0-0" / "gallery" / "9" / "0009_c12_0001.png").unlink()
    task = FolderStream(tree, 8, 4).task(0, 0)
    assert len(task.train) == 6
    assert task.gallery.pixels.shape == (0, 8, 4, 3)
    assert task.gallery.pids.dtype == np.int64


def test_refused_root(tmp_path):
    refused(tmp_path / "nowhere", r"nowhere cannot be listed \(No such file or directory\): .*correct the path")
    refused(tmp_path, "has no task folders: expected task-0-0")
    save(tmp_path / "picture.png")
    refused(tmp_path / "picture.png", r"cannot be listed \(Not a directory\)")


def test_refused_tasks(tree):
    (tree / "task-1-1").rename(tree / "task-1-2")
    refused(tree, "no task-0-2: expected tasks 0 to 2 for each of the clients 0 to 1")
    (tree / "task-1-2").rename(tree / "task-1-x")
    refused(tree, "task-1-x is no task")
    (tree / "task-1-x").rename(tree / "task-01-00")
    refused(tree, "the same client and task")


@pytest.mark.parametrize("split", ["train", "query", "gallery"])
def test_refused_missing_split(tree, split):
    (tree / "task-1-0" / split).rename(tree / "elsewhere")
    refused(tree, f"task-1-0/{split} cannot be listed .*each task has train, query and gallery")


def test_refused_empty_train(tree):
    (tree / "task-1-0" / "train").rename(tree / "elsewhere")
    (tree / "task-1-0" / "train" / "5").mkdir(parents=True)
    refused(tree, "task-1-0/train has no images")


@pytest.mark.parametrize("name", ["anna", "-1", "1.5", "9" * 19])
def test_refused_person_folder(tree, name):
    (tree / "task-0-0" / "query" / name).mkdir()
    refused(tree, f"query/{name} is no person: expected a folder named by a number")


def test_refused_files(tree):
    (tree / "task-0-0" / "query" / "7").write_text("a file")
    refused(tree, "query/7 is no person")
    (tree / "task-0-0" / "query" / "7").unlink()
    (tree / "task-0-0" / "query" / "9" / "notes.txt").write_text("a file")
    refused(tree, r"notes.txt is no image: expected files in .bmp, .jpeg, .jpg, .png")
    (tree / "task-0-0" / "query" / "9" / "notes.txt").unlink()
    (tree / "task-0-0" / "query" / "9" / "folder.png").mkdir()
    refused(tree, "folder.png is no image")


@pytest.mark.parametrize("place", ["task-0-2", "task-0-0/train/77", "task-0-0/train/9/77.png"])
@pytest.mark.parametrize("target", ["outside", "nowhere", "circle"])
def test_links_out_of_the_root_are_passed_over_and_counted(tree, place, target):
    before = FolderStream(tree, 8, 4).labels(0, 0)
    link = tree / place
    link.symlink_to({"outside": tree.parent, "nowhere": tree / "nowhere", "circle": link}[target])
    stream = FolderStream(tree, 8, 4)
    assert stream.passed_over == {LEADS_OUT if target == "outside" else LEADS_NOWHERE: 1}
    assert (stream.tasks, stream.labels(0, 0)["train"].tolist()) == (2, before["train"].tolist())


def test_links_out_of_the_root_are_followed_if_asked(tree):
    (tree / "task-1-1").rename(tree.parent / "elsewhere")
    (tree / "task-1-1").symlink_to(tree.parent / "elsewhere")
    refused(tree, "no task-1-1")
    assert len(FolderStream(tree, 8, 4, follow_links=True).task(1, 1).train) == 6


def test_what_other_programs_leave_is_passed_over_and_counted(tree):
    (tree / "task-0-0" / "train" / "@eaDir").mkdir()
    (tree / "task-0-0" / "train" / "9" / "Thumbs.db").write_text("")
    (tree / "task-0-0" / "train" / "9" / "._1.jpg").write_text("")
    (tree / "__MACOSX").mkdir()
    (tree / "train").mkdir()
    save(tree / "cover.png")
    assert FolderStream(tree, 8, 4).passed_over == {HIDDEN: 4, OTHER_FOLDER: 1, BESIDE: 1}


def test_links_inside_the_root_and_to_the_root_are_followed(tree):
    (tree / "task-0-0" / "gallery" / "77").symlink_to(tree / "task-1-0" / "train" / "3")
    link = tree.parent / "link"
    link.symlink_to(tree)
    assert FolderStream(link, 8, 4).task(0, 0).gallery.pids.tolist() == [9, 77, 77]


def test_read_resizes_with_antialiasing(tmp_path):
    """Stripes one pixel wide average to grey; picking single pixels would leave them black or white."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    small = read(tmp_path / "stripes.png", 6, 8)
    assert small.shape == (6, 8, 3)
    assert np.abs(small.astype(int) - 127).max() < 16


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9])
def test_read_refuses_truncated_files(tmp_path, suffix, kept):
    path = tmp_path / f"image.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 32, 3), np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(InputError, match=rf"image\.{suffix} cannot be read as an image"):
        read(path, 8, 4)
