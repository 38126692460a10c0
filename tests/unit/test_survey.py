import hashlib
import os
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from fedstil_mpi.data.building import scratch as scratch_module
from fedstil_mpi.data.building.scratch import Scratch
from fedstil_mpi.data.building.survey import survey
from fedstil_mpi.data.files.hashed import WINDOW, read_hashed
from fedstil_mpi.data.files.images import read
from fedstil_mpi.util.errors import InputError

SIZE = (8, 4)


def save(path, seed, size=(16, 8)):
    """An image of squares, of these height and width."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[0] // 4, size[1] // 4, 3), np.uint8)
    Image.fromarray(pixels.repeat(4, 0).repeat(4, 1)).save(path)
    return path


def truncated(path, seed):
    content = BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)).save(content, "JPEG")
    path.write_bytes(content.getvalue()[: len(content.getvalue()) // 2])
    return path


@pytest.fixture
def files(tmp_path):
    """Twenty different images, JPEG and PNG by turns, of several sizes."""
    return [save(tmp_path / f"{n:02}.{('jpg', 'png')[n % 2]}", n, (16 + 4 * (n % 3), 8)) for n in range(20)]


@pytest.fixture
def scratch(tmp_path):
    with Scratch(tmp_path / "out.h5", *SIZE) as opened:
        yield opened


def stored(scratch, count):
    return np.concatenate(list(scratch.blocks(np.arange(count))))


@pytest.mark.parametrize("threads", [1, 3])
def test_every_file_is_hashed_and_its_pixels_stored(files, scratch, threads):
    found = survey(files, scratch, threads=threads)
    assert found.kept.tolist() == list(range(20))
    assert (found.duplicates, found.unreadable) == ({}, ())
    pixels = stored(scratch, 20)
    for file, image, of_file, of_pixels in zip(files, pixels, found.file_sha256, found.pixels_sha256, strict=True):
        np.testing.assert_array_equal(image, read(file, *SIZE))
        assert of_file.tobytes() == hashlib.sha256(file.read_bytes()).digest()
        assert of_pixels.tobytes() == hashlib.sha256(image.tobytes()).digest()


def test_only_the_first_of_equal_images_stays(tmp_path, scratch):
    first, other = save(tmp_path / "b.png", 1), save(tmp_path / "a.png", 2)
    same_file = tmp_path / "c.png"
    same_file.write_bytes(first.read_bytes())
    same_pixels = tmp_path / "d.bmp"
    Image.open(first).save(same_pixels)
    found = survey([first, same_file, other, same_pixels], scratch, threads=2)
    assert found.kept.tolist() == [0, 2]
    assert found.duplicates == {1: 0, 3: 0}
    np.testing.assert_array_equal(stored(scratch, 2), [read(first, *SIZE), read(other, *SIZE)])


def broken(folder):
    """Files that are no images, each in another way."""
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("no image")
    return [
        truncated(folder / "half.jpg", 0),
        folder / "empty.png",
        folder / "text.jpg",
        folder / "absent.png",
        folder,
    ]


@pytest.mark.parametrize("which", range(5))
def test_the_first_broken_file_is_named(files, scratch, tmp_path, which):
    file = broken(tmp_path)[which]
    with pytest.raises(
        InputError,
        match=r"(cannot be read as an image|is a folder|does not exist).*; (replace|remove).*, or leave .*--skip-unreadable",
    ) as refusal:
        survey([*files[:10], file, *broken(tmp_path), *files[10:]], scratch, threads=3)
    assert f"{file} " in str(refusal.value)
    assert str(refusal.value).endswith(", or leave such files out with --skip-unreadable")
    assert "\n" not in str(refusal.value)


def test_broken_files_are_left_out_if_asked(files, scratch, tmp_path):
    bad = broken(tmp_path)
    found = survey([bad[0], *files, *bad[1:]], scratch, threads=2, skip_unreadable=True)
    assert found.unreadable == (0, 21, 22, 23, 24)
    assert found.kept.tolist() == list(range(1, 21))
    np.testing.assert_array_equal(stored(scratch, 20)[-1], read(files[-1], *SIZE))


def test_no_files(scratch):
    found = survey([], scratch, threads=1)
    assert found.kept.shape == (0,)
    assert found.file_sha256.shape == found.pixels_sha256.shape == (0, 32)


@pytest.mark.parametrize("threads", [1, 3])
def test_few_files_are_read_ahead(files, threads):
    asked = 0

    def paths():
        nonlocal asked
        for _ in range(10):
            for file in files:
                asked += 1
                yield file

    for done, _ in enumerate(read_hashed(paths(), *SIZE, threads)):
        assert asked <= done + WINDOW * threads
    assert done + 1 == asked == 200


# The scratch file.


def test_images_come_back_in_any_order(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 4, 3), np.uint8)
    monkeypatch.setattr(scratch_module, "BLOCK_BYTES", 3 * images[0].size)
    with Scratch(tmp_path / "out.h5", 8, 4) as scratch:
        for image in images:
            scratch.append(image)
        order = np.array([9, 0, 3, 3, 8, 1, 2])
        blocks = list(scratch.blocks(order))
    assert [len(block) for block in blocks] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(blocks), images[order])


def test_the_scratch_file_has_no_name(tmp_path):
    with Scratch(tmp_path / "out.h5", 8, 4) as scratch:
        scratch.append(np.zeros((8, 4, 3), np.uint8))
        assert os.listdir(tmp_path) == []


def test_a_folder_that_takes_no_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"absent takes no scratch file for out\.h5"):
        Scratch(tmp_path / "absent" / "out.h5", 8, 4)
