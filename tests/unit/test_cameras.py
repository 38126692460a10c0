"""Which camera took an image, and what becomes of the Market-1501 rule where that is not known."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fedstil_mpi import methods
from fedstil_mpi.config import loading
from fedstil_mpi.data.inspection.remarks import remarks, unknown_cameras
from fedstil_mpi.data.sources import open_stream
from fedstil_mpi.data.streams.base import SPLITS, Stream
from fedstil_mpi.data.streams.cameras import camera_of, cameras_of
from fedstil_mpi.data.streams.folder import FolderStream
from fedstil_mpi.federation.plan import make_plan
from fedstil_mpi.federation.setup import check_cameras
from fedstil_mpi.util.errors import InputError

NAMES = {
    "0002_c1s1_000451_03.jpg": 1,
    "0001_c12_0001.jpg": 12,
    "0003_C2S3_000451_03.jpg": 2,
    "C1S1.jpg": 1,
    "c3_00012.png": 3,
    "c3.png": 3,
    "cam01_000451.jpg": 1,
    "12_Cam_4.jpeg": 4,
    "camera7 0001.png": 7,
    "market_0002_c6s4_000451_03.jpg": 6,
    "000000_c00_s00_f000264.jpg": 0,  # RandPerson
    "333_c001_78.jpg": 1,  # UnrealPerson
    "0001_c1_1.png": 1,  # CUHK03-NP
    "0000_000_01_0303morning_0008_0.jpg": 1,  # MSMT17
    "0114_019_10_0303noon_0284_2_ex.jpg": 10,
    "5_001_2_06.png": 52,  # CUHK03: the second camera of the fifth pair
    "0001C6T0001F001.jpg": 6,  # MARS
    "0001.jpg": -1,
    "001_01_1.png": -1,
    "abc3_1.png": -1,
    "c12345_1.png": -1,  # no set has so many cameras: a frame
    "00012_set-0001-c1s1-000451.png": -1,  # as `data unpack` writes a source by an unknown camera
}


@pytest.mark.parametrize("name", NAMES)
def test_names_in_the_wild(name):
    assert camera_of(name) == NAMES[name]


PATHS = ["task-0-0/train/9/a-1-x.png", "task-0-0/query/9/b-2-x.png", "task-0-0/query/9/c1_x.png"]


def test_a_pattern(tmp_path):
    assert cameras_of(tmp_path, PATHS, r"[ab]-(?P<camera>[0-9]+)-") == [1, 2, -1]
    assert cameras_of(tmp_path, PATHS, r"(?P<camera>train|query)/") == [1, 0, 0]


@pytest.mark.parametrize(
    ("pattern", "reason"), [("(?P<camera>", "is no regular expression"), ("(a)", "has no group named")]
)
def test_a_pattern_that_cannot_be_used(tmp_path, pattern, reason):
    with pytest.raises(InputError, match=reason):
        cameras_of(tmp_path, PATHS, pattern)


@pytest.mark.parametrize(
    ("cameras", "expected"),
    [
        (["07", "12", "3"], [7, 12, -1]),
        (["lift", "door", "hall"], [1, 0, -1]),  # in the order of their names
        (["lift", "", "lift"], [0, -1, -1]),
    ],
)
def test_a_table(tmp_path, cameras, expected):
    """Of two of the images, and of another that is not there."""
    lines = [f"{path},{camera}" for path, camera in zip([*PATHS[:2], "elsewhere.png"], cameras, strict=True)]
    (tmp_path / "cameras.csv").write_text("\n".join(["path,camera", *lines]))
    assert cameras_of(tmp_path, PATHS) == expected


@pytest.mark.parametrize(
    ("text", "pattern", "reason"),
    [
        ("path\n", None, "has no column camera"),
        (f"path,camera\n{PATHS[0]},1\n{PATHS[0]},2\n", None, "line 3: .* has two cameras, '1' and '2'"),
        ("path,camera\nother.png,1\n", None, "names none of the images"),
        (f"path,camera\n{PATHS[0]},1\n", "(?P<camera>a)", "both say which camera"),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path, text, pattern, reason):
    (tmp_path / "cameras.csv").write_text(text)
    with pytest.raises(InputError, match=reason):
        cameras_of(tmp_path, PATHS, pattern)


def tree(root, query="c1_{}.png", gallery="c2_{}.png"):
    """One client, two people, of whom there are two queries and two gallery images."""
    for split, name in (("train", "c1_{}.png"), ("query", query), ("gallery", gallery)):
        for person in (4, 7):
            folder = root / "task-0-0" / split / str(person)
            folder.mkdir(parents=True)
            for number in range(2):
                pixels = np.random.default_rng().integers(0, 256, (16, 8, 3), np.uint8)
                Image.fromarray(pixels).save(folder / name.format(number))
    return root


def planned(root, *overrides):
    source = loading.read("configs/quickstart.yaml", [f"data.path={root}", "data.kind=folder", *overrides])
    draft = loading.resolve(source)
    method = methods.load(draft.method.name)
    experiment = loading.resolve(source, method.Options, method.PRESETS)
    return make_plan(experiment, method, open_stream(draft.data, 1))


def test_all_cameras_known(tmp_path):
    assert remarks(FolderStream(tree(tmp_path), 8, 4)) == []
    planned(tmp_path)


def test_none_known_is_said_plainly(tmp_path):
    stream = FolderStream(tree(tmp_path, "{}.png", "{}.png"), 8, 4)
    (line,) = remarks(stream)
    assert line.startswith(
        "the camera of none of the 8 queries and gallery images is known: protocol market takes none"
    )
    planned(tmp_path)


def test_some_unknown_would_mix_two_protocols(tmp_path):
    stream = FolderStream(tree(tmp_path, gallery="{}.png"), 8, 4)
    assert unknown_cameras(stream) == (4, 8)
    assert remarks(stream) == ["the camera of 4 of 8 queries and gallery images is not known"]
    with pytest.raises(InputError, match=r"the camera of 4 of 8 .* mix two protocols; name the cameras .* or set"):
        planned(tmp_path)
    planned(tmp_path, "evaluation.allow_unknown_cameras=true")
    planned(tmp_path, "evaluation.protocol=reference_code")
    planned(tmp_path, "data.camera_pattern='(?P<camera>train|query|gallery)'")


@pytest.mark.parametrize("view", ["data.validation=true", "data.pooled=true", "data.clients=[0]"])
def test_views_know_what_their_source_knows(tmp_path, view):
    root = tree(tmp_path / "a", gallery="{}.png")
    tree(tmp_path / "b")
    (tmp_path / "b" / "task-0-0").rename(root / "task-1-0")
    data = loading.resolve(
        loading.read("configs/quickstart.yaml", [f"data.path={root}", "data.kind=folder", view])
    ).data
    stream = open_stream(data, 1)
    for client in range(stream.clients):
        task, cameras = stream.task(client, 0), stream.cameras(client, 0)
        for split in SPLITS:
            np.testing.assert_array_equal(cameras[split], getattr(task, split).cameras)


class Decoded(Stream):
    """A stream of the user's own that says nothing of cameras before its images are there."""

    def __init__(self, source):
        self.source, self.clients, self.tasks = source, source.clients, source.tasks

    def task(self, client, task):
        return self.source.task(client, task)


@pytest.mark.parametrize("others", [[0, 8], [8, 8]])
def test_some_unknown_is_found_when_the_images_are_there(tmp_path, others):
    """Among the images of all ranks together: here of this one, and of another."""
    root = tree(tmp_path, "{}.png", "{}.png")
    plan, stream = planned(root), Decoded(FolderStream(root, 8, 4))
    assert remarks(stream) == []
    world = SimpleNamespace(verdict=nullcontext, gather_json=lambda counts: [list(counts), others])
    if others == [8, 8]:
        check_cameras(world, plan, [[stream.task(0, 0)]])
        return
    with pytest.raises(InputError, match="the camera of 8 of 16 queries and gallery images is not known"):
        check_cameras(world, plan, [[stream.task(0, 0)]])
