"""The places where cameras hang, and what a camera makes of the scene before it.

Shapes: B images, H rows, W columns, C cameras; numbers are float32, colours RGB between 0 and 1.
"""

from dataclasses import dataclass

import numpy as np

from fedstil_mpi.data.synthetic.canvas import Canvas

THINGS = 16
"""Pieces of clutter in a scene."""
SCENE_DRAWS, CROP_DRAWS = 7 + 8 * THINGS, 2
"""Uniform numbers behind a scene, and behind the piece of it that an image shows."""


@dataclass(frozen=True)
class Conditions:
    """What a camera makes of the colours of a scene, for each image."""

    light: np.ndarray
    """[B, 2]: change of brightness from the centre to the right and lower edge."""
    blur: np.ndarray
    """Share that a pixel gives to each neighbour, 0 to 0.25."""
    matrix: np.ndarray
    """[B, 3, 3]: colour response, exposure and contrast."""
    offset: np.ndarray
    """[B, 3]: added after the matrix."""
    tone: np.ndarray
    """-1 to 1: lifts (positive) or lowers the middle tones."""
    noise: np.ndarray
    """Standard deviation of the sensor's noise."""


def photograph(pixels: np.ndarray, conditions: Conditions, noise: np.ndarray) -> np.ndarray:
    """What the cameras record of the scenes `pixels`, which are overwritten: uint8 [B, H, W, 3].

    `noise` holds standard normal numbers of the shape of `pixels`, [B, 3, H, W].
    """
    count, _, height, width = pixels.shape
    rightwards = np.linspace(-1, 1, width, dtype=np.float32) * conditions.light[:, :1]
    downwards = np.linspace(-1, 1, height, dtype=np.float32) * conditions.light[:, 1:]
    pixels *= np.maximum(1 + rightwards[:, None, :] + downwards[:, :, None], 0.1)[:, None]
    step = 1
    while step <= height // 32:  # ever wider steps: the same blur relative to the image at every size
        for axis in (2, 3):
            pixels = _spread(pixels, step, axis, conditions.blur[:, None, None, None])
        step *= 2
    flat = conditions.matrix @ pixels.reshape(count, 3, -1) + conditions.offset[:, :, None]
    np.clip(flat, 0, 1, out=flat)
    flat += conditions.tone[:, None, None] * flat * (1 - flat)
    flat += conditions.noise[:, None, None] * noise.reshape(count, 3, -1)
    flat *= 255
    flat += 0.5
    np.clip(flat, 0, 255, out=flat)
    return np.ascontiguousarray(flat.astype(np.uint8).reshape(count, 3, height, width).transpose(0, 2, 3, 1))


def _spread(pixels: np.ndarray, step: int, axis: int, share: np.ndarray) -> np.ndarray:
    """Every pixel gives a share to the two pixels `step` away along an axis; the border repeats."""
    padded = np.pad(pixels, [(step, step) if i == axis else (0, 0) for i in range(4)], mode="edge")
    size = pixels.shape[axis]
    before = padded.take(range(size), axis)
    after = padded.take(range(2 * step, 2 * step + size), axis)
    return pixels + share * (before + after - 2 * pixels)


def scenes(draws: np.ndarray, height: int, width: int) -> np.ndarray:
    """The places where cameras hang: wall, ground and clutter, float32 [C, 3, height, width].

    `draws` are uniform numbers [C, SCENE_DRAWS]: equal draws, equal place.
    """
    count = len(draws)
    pixels = np.empty((count, 3, height, width), np.float32)
    zero, one = np.zeros(count, np.float32), np.ones(count, np.float32)
    canvas = Canvas(pixels, one, zero, one)
    horizon = 0.25 + 0.35 * draws[:, 6]
    brightness = 0.75 + 0.5 * np.abs(canvas.v - horizon[:, None])
    wall_and_ground = canvas.split(horizon, muted(draws[:, 0:3]), muted(draws[:, 3:6]))
    pixels[:] = (wall_and_ground * brightness[:, None])[:, :, :, None]
    for thing in np.split(draws[:, 7:], THINGS, axis=1):
        place, breadth, altitude, tallness, hangs = thing[:, 3:].T
        middle = width / height * (place - 0.5)
        half = 0.02 + 0.13 * breadth**2
        low = np.where(hangs < 0.5, horizon, 0) + 0.4 * altitude - 0.1
        high = low + 0.1 + 0.7 * tallness**2
        canvas.paint(muted(thing[:, :3]), low, high, (middle, middle), (half, half), corner=16)
    return pixels


def crop(places: np.ndarray, which: np.ndarray, draws: np.ndarray, height: int, width: int) -> np.ndarray:
    """A piece of each picture's place, [B, 3, height, width], where the draws [B, CROP_DRAWS] say."""
    top = (draws[:, 0] * (places.shape[2] - height + 1)).astype(int)
    left = (draws[:, 1] * (places.shape[3] - width + 1)).astype(int)
    rows, columns = top[:, None] + np.arange(height), left[:, None] + np.arange(width)
    return places[
        which[:, None, None, None], np.arange(3)[:, None, None], rows[:, None, :, None], columns[:, None, None]
    ]


def muted(draws: np.ndarray) -> np.ndarray:
    """Colours of walls and things, less vivid than clothes, from uniform numbers; both [n, 3]."""
    return 0.3 + 0.35 * (0.6 * draws.mean(axis=1, keepdims=True) + 0.4 * draws)
