"""What there is to know about people to draw them: what stays the same, and how they stand in one image.

Shapes: N people, B images; numbers are float32, colours RGB between 0 and 1, [N, 3] or [B, 3].
"""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np

NO_BAG, BACKPACK, SHOULDER_BAG, HAND_BAG = range(4)


@dataclass(frozen=True)
class _Columns:
    """Named arrays of equal length; indexing picks the same rows of each."""

    def __getitem__(self, rows: np.ndarray | slice) -> Self:
        return type(self)(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


@dataclass(frozen=True)
class People(_Columns):
    """What stays the same in all images of a person. Lengths are relative to an average person's."""

    stature: np.ndarray
    shoulders: np.ndarray
    build: np.ndarray
    crotch: np.ndarray
    """Height where the legs begin, in body heights."""
    skin: np.ndarray
    hair: np.ndarray
    hair_length: np.ndarray
    """How far the hair falls below the crown, in body heights."""
    hat: np.ndarray
    """Half-width of the hat relative to the head's; negative: no hat."""
    upper: np.ndarray
    accent: np.ndarray
    """Second colour of the upper garment, the hat's too."""
    texture: np.ndarray
    """[N, 4]: weights of rings, bars, rings x bars and 1, whose sum above zero is drawn in the accent colour."""
    waves: np.ndarray
    """[N, 2]: number of rings over the body's height and of bars around the body."""
    phases: np.ndarray
    """[N, 2]: of rings and bars, in periods."""
    hem: np.ndarray
    """Height where the upper garment ends, in body heights."""
    sleeve: np.ndarray
    """Share of the arm under the sleeve."""
    lower: np.ndarray
    trousers: np.ndarray
    """Share of the leg under trousers or shorts."""
    skirt: np.ndarray
    """Share of the leg under a skirt; negative: no skirt."""
    shoes: np.ndarray
    bag: np.ndarray
    """int [N]: NO_BAG, BACKPACK, SHOULDER_BAG or HAND_BAG."""
    bag_colour: np.ndarray
    bag_size: np.ndarray
    bag_side: np.ndarray
    """-1 or 1: which arm or hip carries it."""


@dataclass(frozen=True)
class Poses(_Columns):
    """How a person stands in one image."""

    heading: np.ndarray
    """Radians: 0 walks towards the camera, pi / 2 to the right, pi away."""
    swing: np.ndarray
    """-1 to 1: how far legs and arms are apart."""
    foot: np.ndarray
    """Row of the soles, 0 (top) to 1 (bottom)."""
    middle: np.ndarray
    """Column of the body's middle, 0 (centre of the image), in image heights."""
    scale: np.ndarray
    """Height of an average person, in image heights."""
    obstacle: np.ndarray
    """[B, 4]: something in front of the person: middle, half-width, top, bottom in image heights; width < 0: none."""
    obstacle_colour: np.ndarray
