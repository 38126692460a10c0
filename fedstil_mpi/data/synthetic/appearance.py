"""Who people are, how they stand and how cameras see: made of uniform numbers between 0 and 1.

Shapes: n people, B images. Each function takes the columns of its numbers one after another.
"""

import numpy as np

from fedstil_mpi.data.synthetic.cameras import Conditions, muted
from fedstil_mpi.data.synthetic.drifts import Drifts
from fedstil_mpi.data.synthetic.people import BACKPACK, HAND_BAG, NO_BAG, SHOULDER_BAG, People, Poses

PERSON_DRAWS, CAMERA_DRAWS, POSE_DRAWS = 48, 32, 22
"""Uniform numbers behind a person, a camera and a pose; some are spare."""
VIEW_DRAWS = 2
"""How many of a camera's numbers, the first ones, make up its view."""
PALETTE = np.array(
    [
        (0.08, 0.08, 0.09),  # black
        (0.70, 0.71, 0.73),  # light grey
        (0.13, 0.18, 0.36),  # navy
        (0.60, 0.15, 0.16),  # red
        (0.68, 0.58, 0.43),  # beige
        (0.24, 0.40, 0.27),  # green
        (0.30, 0.46, 0.68),  # blue
        (0.34, 0.34, 0.35),  # grey
        (0.37, 0.25, 0.17),  # brown
        (0.93, 0.92, 0.90),  # white
    ],
    np.float32,
)
SKINS = np.array([(0.91, 0.75, 0.64), (0.82, 0.63, 0.50), (0.65, 0.47, 0.35), (0.40, 0.27, 0.19)], np.float32)
HAIRS = np.array([(0.09, 0.07, 0.06), (0.24, 0.15, 0.10), (0.55, 0.40, 0.22), (0.60, 0.59, 0.58)], np.float32)
TEXTURES = np.array(
    [  # weights of rings, bars, rings x bars, 1; rings (low, high); bars (low, high); phase of rings (low, high)
        (0, 0, 0, -1, 1, 1, 1, 1, 0, 0),  # plain
        (0, 0, 0, -1, 1, 1, 1, 1, 0, 0),  # plain
        (1, 0, 0, 0, 7, 12, 1, 1, 0, 1),  # rings
        (0, 1, 0, 0, 1, 1, 4, 8, 0, 0),  # bars
        (0, 0, 1, 0, 6, 9, 3, 6, 0, 1),  # checks
        (1, 1, 0, -0.4, 7, 10, 4, 7, 0, 1),  # dots
        (1, 1, 0, -1.2, 1.5, 1.5, 2, 2, -0.1, 0),  # a patch on chest and back
        (6, 0, 0, 0, 0.8, 0.8, 1, 1, -0.35, -0.23),  # two colours, the accent below
    ],
    np.float32,
)
LUMA = np.array([0.3, 0.59, 0.11], np.float32)
"""How bright red, green and blue look."""
AIRLIGHT = 0.7
"""Grey of haze so thick that nothing is seen through it."""
BAGS = np.repeat([NO_BAG, BACKPACK, SHOULDER_BAG, HAND_BAG], [3, 3, 2, 2])


def _between(low: float | np.ndarray, high: float | np.ndarray, draw: np.ndarray) -> np.ndarray:
    return low + (high - low) * draw


def _pick(table: np.ndarray, draw: np.ndarray) -> np.ndarray:
    """A row of the table for each draw, all equally likely."""
    return table[(draw * len(table)).astype(int)]


def identities(draws: np.ndarray, colours: int, jitter: float, winter: np.ndarray) -> People:
    """People from uniform numbers [n, PERSON_DRAWS]. Colours are shared; shape, texture and bag tell people apart.

    Clothes come in the first `colours` of the palette, with a standard deviation of `jitter` around each. `winter`, [n],
    is how likely a person is to wear the darkest third of them, with long sleeves.
    """
    u = iter(draws.T)
    palette = PALETTE[:colours]
    every = np.arange(colours)
    dark = (palette @ LUMA).argsort()[: max(1, colours // 3)]
    in_winter = draws[:, -1] < winter

    def garment(draw: np.ndarray) -> np.ndarray:
        """Which colour of the palette."""
        return np.where(in_winter, _pick(dark, draw), _pick(every, draw))

    def common(colour: np.ndarray) -> np.ndarray:
        spread = np.sqrt(12) * jitter * (np.stack([next(u), next(u), next(u)], axis=1) - 0.5)
        return np.clip(colour + spread.astype(np.float32), 0.03, 0.97)

    # For every colour the farthest half of the others, so that a texture shows.
    far = np.linalg.norm(palette[:, None] - palette, axis=2).argsort(axis=1)[:, ::-1][:, : max(1, len(palette) // 2)]
    base = garment(next(u))
    accent = np.take_along_axis(far[base], (next(u) * far.shape[1]).astype(int)[:, None], axis=1)[:, 0]
    texture = _pick(TEXTURES, next(u))
    rings, bars, rings_phase = (_between(texture[:, i], texture[:, i + 1], next(u)) for i in (4, 6, 8))
    bars_phase = np.where(bars > 2, next(u), 0).astype(np.float32)  # two bars: in the middle of chest and back
    crotch = _between(0.44, 0.53, next(u))
    skirt = np.where(next(u) < 0.25, _between(0.35, 0.85, next(u)), -1)
    lower_kind = next(u)
    return People(
        stature=_between(0.9, 1.06, next(u)),
        shoulders=_between(0.82, 1.22, next(u)),
        build=_between(0.78, 1.4, next(u)),
        crotch=crotch,
        skin=_pick(SKINS, next(u)),
        hair=_pick(HAIRS, next(u)),
        hair_length=_pick(np.array([0.06, 0.08, 0.14, 0.2, 0.28], np.float32), next(u)),
        hat=_pick(np.array([-1, -1, -1, 1, 1.5], np.float32), next(u)),
        upper=common(palette[base]),
        accent=common(palette[accent]),
        texture=texture[:, :4],
        waves=np.stack([rings, bars.round()], axis=1),
        phases=np.stack([rings_phase, bars_phase], axis=1),
        hem=crotch - _pick(np.array([0.0, 0.0, 0.02, 0.14, 0.2], np.float32), next(u)),
        sleeve=np.where(in_winter, np.float32(1), _pick(np.array([1, 1, 1, 0.4, 0.15], np.float32), next(u))),
        lower=common(palette[garment(next(u))]),
        trousers=np.where(skirt > 0, 0, np.where(lower_kind < 0.75, 1, 0.45)).astype(np.float32),
        skirt=skirt.astype(np.float32),
        shoes=common(_pick(palette, next(u))),
        bag=_pick(BAGS, next(u)),
        bag_colour=common(_pick(palette, next(u))),
        bag_size=_between(0.8, 1.25, next(u)),
        bag_side=_pick(np.array([-1, 1], np.float32), next(u)),
    )


def poses(traits: np.ndarray, draws: np.ndarray, strength: float, occlusion: np.ndarray, aspect: float) -> Poses:
    """How people stand in images [B, ...] of cameras `traits`, from uniform numbers [B, POSE_DRAWS].

    A camera sees people from a direction of its own, walking to and fro. `occlusion`, [B], is how likely something is in
    front of them; `aspect` is the images' width / height.
    """
    u = iter(draws.T)
    direction, nearness = traits[:, :VIEW_DRAWS].T
    heading = strength * _between(-np.pi, np.pi, direction) + _between(-0.9, 0.9, next(u)) + np.pi * (next(u) < 0.35)
    hidden, is_post, place = next(u) < occlusion, next(u) < 0.5, 2 * next(u) - 1
    reach = aspect / 2
    beside = reach * np.where(place < 0, -1, 1) * _between(0.2, 0.7, np.abs(place))
    half = np.where(is_post, _between(0.04, 0.08, next(u)), _between(0.15, 0.3, next(u)))
    obstacle = (
        np.where(is_post, beside, reach * place / 2),
        np.where(hidden, half, -1),
        np.where(is_post, -0.1, _between(0.6, 0.8, next(u))),
        np.full_like(place, 1.1),
    )
    return Poses(
        heading=heading.astype(np.float32),
        swing=np.sin(2 * np.pi * next(u)),
        foot=_between(0.95, 0.99, next(u)),
        middle=_between(-0.035, 0.035, next(u)),
        scale=(0.86 + strength * _between(-0.03, 0.03, nearness)) * _between(0.96, 1.04, next(u)),
        obstacle=np.stack(obstacle, axis=1).astype(np.float32),
        obstacle_colour=muted(np.stack([next(u), next(u), next(u)], axis=1)),
    )


def conditions(traits: np.ndarray, strength: float, drifts: Drifts) -> Conditions:
    """How cameras `traits` [B, CAMERA_DRAWS] record after the `drifts` [B] since they were hung."""
    u = iter(traits[:, VIEW_DRAWS:].T)
    evening = drifts.evening

    def differ(most: float, count: int = 1) -> np.ndarray:
        """Numbers [B, count] by which cameras differ, up to `most` either way."""
        return most * strength * (2 * np.stack([next(u) for _ in range(count)], axis=1) - 1)

    dark, dusk = evening * _between(0.1, 0.6, next(u)), evening * _between(-0.25, 0.25, next(u))
    turn = evening * _between(-0.6, 0.6, next(u))
    gain = np.exp(differ(0.2)[:, 0]) / (1 + dark)
    white = np.exp(differ(0.1, 3)) * (1 + dusk[:, None] * np.array([1, 0.1, -1], np.float32))
    white /= white.mean(axis=1, keepdims=True)
    grey = 0.15 * strength + 0.2 * dark + differ(0.2)[:, 0]
    mixing = np.eye(3, dtype=np.float32) * (1 - grey)[:, None, None] + (grey / 3)[:, None, None]
    mixing = mixing + differ(0.05, 9).reshape(-1, 3, 3)
    contrast = 1 + differ(0.2)[:, 0]
    matrix = (contrast * gain)[:, None, None] * white[:, :, None] * mixing
    veil = 0.4 * (1 - contrast) * gain + 0.08 * strength * next(u)
    # Koschmieder's law: of a colour so much comes through the haze, the rest is the haze's own.
    clear = np.exp(-drifts.haze)[:, None]
    airlight = AIRLIGHT * (1 - clear) * matrix.sum(axis=2)
    light, blur, tone, noise = differ(0.3, 2), differ(0.1)[:, 0], differ(0.35)[:, 0], differ(0.012)[:, 0]
    wear = drifts.wear * _between(0.5, 1, next(u))
    return Conditions(
        light=light + turn[:, None] * np.array([1, 0.3], np.float32),
        blur=np.clip(0.05 + 0.06 * evening + blur + 0.12 * wear, 0, 0.22),
        matrix=(clear[:, :, None] * matrix).astype(np.float32),
        offset=veil[:, None] + airlight,
        tone=np.clip(tone, -0.8, 0.8),
        noise=np.clip(0.02 + 0.01 * evening + noise + 0.04 * wear, 0.004, 0.08),
    )
