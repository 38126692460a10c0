"""An image file is read as a viewer shows it."""

import numpy as np
import pytest
from PIL import Image

from fedstil_mpi.client.representations import IMAGENET_MEAN
from fedstil_mpi.data.files.images import MEAN_COLOUR, read

RED, BLUE = (200, 40, 40), (30, 60, 220)


def two_halves(size=(4, 6)):
    """Red above blue."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (0, size[1] // 2, size[0], size[1]))
    return image


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("L", "a.png"),
        ("LA", "a.png"),
        ("P", "a.png"),
        ("RGBA", "a.png"),
        ("CMYK", "a.jpg"),
        ("1", "a.png"),
        ("RGB", "a.webp"),
    ],
)
def test_modes_that_only_store_it_otherwise(tmp_path, mode, name):
    Image.new("RGB", (4, 4), "white").convert(mode).save(tmp_path / name)
    np.testing.assert_array_equal(read(tmp_path / name, 4, 4), 255)


def test_a_palette_is_looked_up(tmp_path):
    two_halves().convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png", 6, 4), np.asarray(two_halves()))


def test_of_16_bits_of_grey_the_upper_eight_are_kept(tmp_path):
    values = np.array([[0, 255, 256, 511], [25700, 32768, 65279, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    found = read(tmp_path / "a.png", 2, 4)
    for channel in range(3):
        np.testing.assert_array_equal(found[:, :, channel], [[0, 0, 1, 1], [100, 128, 254, 255]])


ORIENTED = {1: 0, 3: 180, 6: -90, 8: 90}
"""EXIF orientation -> degrees, against the clock, by which the stored pixels are turned to be shown."""


@pytest.mark.parametrize("orientation", ORIENTED)
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_exif_orientation(tmp_path, orientation, name):
    shown = two_halves((16, 32))
    stored = shown.rotate(-ORIENTED[orientation], expand=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / name, exif=exif, **({"quality": 95} if name.endswith("jpg") else {}))
    found = read(tmp_path / name, 32, 16).astype(int)
    assert np.abs(found - np.asarray(shown)).mean() < 8
    assert found[4, 8, 0] > 150 > found[28, 8, 0], "red is above"


def test_transparent_pixels_show_the_mean_colour(tmp_path):
    image = two_halves().convert("RGBA")
    pixels = np.asarray(image).copy()
    pixels[:3, :, 3] = 0
    pixels[3:, :, 3] = (255, 255, 0, 51)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = read(tmp_path / "a.png", 6, 4)
    np.testing.assert_array_equal(found[:3], np.broadcast_to(MEAN_COLOUR, (3, 4, 3)))
    np.testing.assert_array_equal(found[3, :3], [BLUE, BLUE, MEAN_COLOUR])
    np.testing.assert_allclose(found[3, 3], 0.2 * np.array(BLUE) + 0.8 * np.array(MEAN_COLOUR), atol=1)
    assert tuple(round(255 * share) for share in IMAGENET_MEAN) == MEAN_COLOUR


def test_transparent_greys_and_colours_of_a_palette(tmp_path):
    Image.new("LA", (4, 4), (7, 0)).save(tmp_path / "grey.png")
    Image.new("P", (4, 4), 0).save(tmp_path / "palette.png", transparency=0)
    for name in ("grey.png", "palette.png"):
        np.testing.assert_array_equal(read(tmp_path / name, 4, 4), np.broadcast_to(MEAN_COLOUR, (4, 4, 3)))
