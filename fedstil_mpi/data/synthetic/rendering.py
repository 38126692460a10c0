"""Draws batches of walking people, layer by layer from far to near.

Lengths are in body heights: v = 0 at the soles, 1 at the crown. Shapes: B images, H rows, W columns.
"""

from typing import NamedTuple

import numpy as np

from fedstil_mpi.data.synthetic.canvas import Canvas, Layer
from fedstil_mpi.data.synthetic.people import BACKPACK, NO_BAG, SHOULDER_BAG, People, Poses


class _Figure(NamedTuple):
    """A batch of people in front of their backgrounds."""

    canvas: Canvas
    people: People
    front: np.ndarray
    """Cosine of the heading: 1 faces the camera, -1 turns the back to it."""
    side: np.ndarray
    """Sine of the heading: 1 faces right."""
    swing: np.ndarray
    hips: np.ndarray
    """Half-width of the hips as the camera sees them."""


def draw(pixels: np.ndarray, people: People, poses: Poses) -> None:
    """Draws one person into each background of `pixels` (float32 [B, 3, H, W]), in place, from far to near."""
    front, side = np.cos(poses.heading), np.sin(poses.heading)
    hips = 0.085 * people.build * np.hypot(front, 0.8 * side)
    canvas = Canvas(pixels, poses.foot, poses.middle, poses.scale * people.stature)
    figure = _Figure(canvas, people, front, side, poses.swing, hips)
    near = np.where(side > 0, -1, 1).astype(np.float32)

    shadow = 0.5 * pixels.mean(axis=(2, 3))
    canvas.paint(shadow, -0.025, 0.025, (0, 0), (0.2, 0.2), corner=2)
    _bag(figure, in_front=False)
    _arm(figure, -near, shade=0.8)
    _leg(figure, -near, shade=0.8)
    _leg(figure, near, shade=1)
    _skirt(figure)
    _torso(figure)
    _head(figure)
    _bag(figure, in_front=True)
    _straps(figure)
    _arm(figure, near, shade=0.95)

    middle, half, top, bottom = poses.obstacle.T
    image = Canvas(pixels, np.ones_like(middle), np.zeros_like(middle), np.ones_like(middle))
    image.paint(poses.obstacle_colour, 1 - bottom, 1 - top, (middle, middle), (half, half), corner=16)


def _arm(figure: _Figure, which: np.ndarray, shade: float) -> None:
    """The arm on one side of the body, `which` -1 or 1 [B]; it swings against the leg of its side."""
    canvas, people, front, side, swing, _ = figure
    shoulder = 0.115 * people.shoulders * which * front
    hand = 1.25 * shoulder - 0.17 * swing * which * side
    colour = np.float32(shade) * canvas.split(0.83 - 0.37 * people.sleeve, people.upper, people.skin)
    thick = 0.027 * people.build
    canvas.paint(colour, 0.45, 0.835, (hand, shoulder), (0.85 * thick, 1.3 * thick))


def _leg(figure: _Figure, which: np.ndarray, shade: float) -> None:
    canvas, people, front, side, swing, _ = figure
    hip = 0.045 * people.build * which * front
    foot = 0.05 * which * front + 0.16 * swing * which * side
    lift = 0.025 * (1 + swing * which * front)
    colour = np.float32(shade) * canvas.split(people.crotch * (1 - people.trousers), people.lower, people.skin)
    ankle = np.where(people.trousers > 0.6, 0.034, 0.026) * people.build
    canvas.paint(colour, lift, people.crotch + 0.06, (foot, hip), (ankle, 0.056 * people.build), corner=16)
    shoe, toes = 0.035 + 0.03 * np.abs(side), foot + 0.035 * side
    canvas.paint(np.float32(shade) * people.shoes, lift - 0.02, lift + 0.025, (toes, foot), (shoe, 0.7 * shoe))


def _skirt(figure: _Figure) -> None:
    people, worn = figure.people, figure.people.skirt > 0
    hem = people.crotch * (1 - np.maximum(people.skirt, 0))
    flare = np.where(worn, figure.hips * (1.1 + 0.5 * people.skirt), -1)
    waist = np.where(worn, 0.9 * figure.hips, -1)
    figure.canvas.paint(people.lower, hem, people.crotch + 0.1, (0, 0), (flare, waist), corner=16)


def _torso(figure: _Figure) -> None:
    """The upper garment, with the texture laid around the body."""
    canvas, people, front, side, _, hips = figure
    shoulders = 0.12 * people.shoulders * np.hypot(front, 0.62 * np.sqrt(people.build) * side)
    layer = canvas.layer(people.hem, 0.86, (0, 0), (1.05 * hips, shoulders))
    canvas.blend(layer, people.upper)
    turn = np.arctan2(side, front)[:, None] / (2 * np.pi)
    around = turn + 0.25 * np.clip(canvas.x / shoulders[:, None], -1, 1)
    rings = _wave(people.waves[:, :1] * canvas.v[:, layer.rows] + people.phases[:, :1])[:, :, None]
    bars = _wave(people.waves[:, 1:] * around + people.phases[:, 1:])[:, None, :]
    weights = people.texture[:, :, None, None]
    field = weights[:, 0] * rings + weights[:, 1] * bars + weights[:, 2] * rings * bars + weights[:, 3]
    canvas.blend(Layer(layer.rows, layer.alpha * np.clip(0.5 + 2 * field, 0, 1)), people.accent)


def _wave(periods: np.ndarray) -> np.ndarray:
    """A triangle wave: 1 at whole numbers, -1 half-way between."""
    return 4 * np.abs(periods - np.floor(periods) - 0.5) - 1


def _head(figure: _Figure) -> None:
    canvas, people, front, side, _, _ = figure
    back, nose = -0.012 * side, 0.022 * side
    canvas.paint(people.skin, 0.82, 0.9, (0, 0), (0.03, 0.03))
    # Seen from the front long hair ends at the shoulders: drawn over the chest it would be a beard.
    length = np.where(front > 0.2, np.minimum(people.hair_length, 0.15), people.hair_length)
    hair = 0.055 + 0.05 * people.hair_length
    canvas.paint(people.hair, 1 - length, 1, (back, back), (hair, hair), corner=4)
    face = 0.052 * np.minimum(0.55 + 0.6 * front, 0.9)
    chin = np.where(face > 0, 0.7 * face, -1)
    canvas.paint(people.skin, 0.86, 0.965, (nose, nose), (chin, face), corner=4)
    brim = 0.058 * people.hat
    canvas.paint(people.accent, 0.955, 1.02, (0.5 * nose, 0.5 * nose), (brim, np.minimum(brim, 0.052)))


def _bag(figure: _Figure, in_front: bool) -> None:
    """The bags that hang on the camera's side of the body, or those behind it."""
    canvas, people, front, side, swing, _ = figure
    lateral, kind, none = people.bag_side, people.bag, np.zeros_like(front)
    hand = lateral * (0.15 * people.shoulders * front - 0.17 * swing * side)
    middle = np.choose(kind, (none, -0.13 * side, _hip(figure), hand))
    nearness = np.choose(kind, (none, -front, 0.3 - lateral * side, -lateral * side))
    half = np.choose(kind, (none, 0.05 + 0.045 * np.abs(front), 0.05 + 0.03 * np.abs(side), none + 0.055))
    half = np.where((kind != NO_BAG) & ((nearness > 0) == in_front), half * people.bag_size, -1)
    top = np.choose(kind, (1, 0.82, 0.56, 0.44))
    bottom = top - people.bag_size * np.choose(kind, (0.1, 0.26, 0.14, 0.15))
    canvas.paint(people.bag_colour, bottom, top, (middle, middle), (half, half))


def _straps(figure: _Figure) -> None:
    """Across the chest to a shoulder bag; over both shoulders to a backpack that the body hides."""
    canvas, people, front, side, _, _ = figure
    half = np.where(people.bag == SHOULDER_BAG, 0.016, -1)
    shoulder = -0.06 * people.bag_side * front
    canvas.paint(people.bag_colour, 0.54, 0.85, (_hip(figure), shoulder), (half, half), corner=64)
    half = np.where((people.bag == BACKPACK) & (front > 0), 0.016, -1)
    for which in (-1, 1):
        place = 0.065 * which * front + 0.03 * side
        canvas.paint(people.bag_colour, 0.62, 0.85, (place, place), (half, half), corner=64)


def _hip(figure: _Figure) -> np.ndarray:
    """Where a shoulder bag hangs."""
    return figure.people.bag_side * (figure.hips + 0.03) * figure.front
