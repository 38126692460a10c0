"""Takes pictures: each is drawn from random numbers of its own, so that it does not matter where and when.

Walks -> appearance -> pictures.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fedstil_mpi.config.synthetic import SyntheticOptions
from fedstil_mpi.data.synthetic import appearance, cameras, rendering
from fedstil_mpi.data.synthetic.drifts import Drifts
from fedstil_mpi.util import seeding

BATCH = 32
"""Pictures drawn at once: few enough to stay in the processor's cache."""
WARMUP_STRENGTH = 0.4
"""How much the server's cameras differ, relative to the clients'."""


class Shot(NamedTuple):
    """One picture to take. With `crowd` it says all that the picture depends on."""

    split: str
    person: int
    client: int
    task: int
    number: int
    camera: int
    when: int
    """The task whose light the camera has: another than `task` where a walker is seen at another stop."""


class Pictures(NamedTuple):
    pixels: np.ndarray
    """uint8 [n, height, width, 3]."""
    pids: np.ndarray
    """int64 [n]."""
    cameras: np.ndarray
    """int64 [n]."""


class Painter:
    """Draws the people and places of one seed."""

    def __init__(
        self, options: SyntheticOptions, seed: int, drifts: Drifts, first_met: Sequence[int], size: tuple[int, int]
    ):
        """drifts: by task; first_met: by person, the first task in which a client sees them; size: height, width."""
        self.options, self.seed, self.drifts, self.first_met, self.size = options, seed, drifts, first_met, size

    def draw(self, crowd: str, shots: Sequence[Shot]) -> Pictures:
        """Takes the pictures; `crowd` tells the clients' people and cameras ("person") from the server's ("warmup")."""
        o, (height, width) = self.options, self.size
        pids, who = np.unique([shot.person for shot in shots], return_inverse=True)
        places, where = np.unique([shot.camera for shot in shots], return_inverse=True)
        met = [self.first_met[person] if crowd == "person" else 0 for person in pids.tolist()]
        draws = self._draws("person", crowd, pids, appearance.PERSON_DRAWS)
        people = appearance.identities(draws, o.colours, o.colour_jitter, self.drifts.at(met).winter)
        traits = self._draws("camera", crowd, places, appearance.CAMERA_DRAWS)
        scenery = cameras.scenes(
            self._draws("scene", crowd, places, cameras.SCENE_DRAWS), height + height // 8, 3 * width
        )
        strength = o.camera_strength * (WARMUP_STRENGTH if crowd == "warmup" else 1)
        pixels = np.empty((len(shots), height, width, 3), np.uint8)
        for start in range(0, len(shots), BATCH):
            batch = slice(start, start + BATCH)
            draws = np.empty((len(shots[batch]), cameras.CROP_DRAWS + appearance.POSE_DRAWS), np.float32)
            noise = np.empty((len(draws), 3, height, width), np.float32)
            for shot, row, grain in zip(shots[batch], draws, noise, strict=True):
                generator = seeding.generator(self.seed, "synthetic", crowd, *shot)
                generator.random(out=row, dtype=np.float32)
                generator.standard_normal(out=grain, dtype=np.float32)
            seen, drifts = traits[where[batch]], self.drifts.at([shot.when for shot in shots[batch]])
            occlusion = o.occlusion + (1 - o.occlusion) * drifts.crowd
            scene = cameras.crop(scenery, where[batch], draws[:, : cameras.CROP_DRAWS], height, width)
            poses = appearance.poses(seen, draws[:, cameras.CROP_DRAWS :], strength, occlusion, width / height)
            rendering.draw(scene, people[who[batch]], poses)
            pixels[batch] = cameras.photograph(scene, appearance.conditions(seen, strength, drifts), noise)
        return Pictures(pixels, pids[who].astype(np.int64), places[where].astype(np.int64))

    def _draws(self, what: str, crowd: str, ids: np.ndarray, count: int) -> np.ndarray:
        """Uniform numbers, float32 [len(ids), count], that describe people, cameras or scenes."""
        purpose = ("synthetic", what, crowd)
        return np.stack([seeding.generator(self.seed, *purpose, int(i)).random(count, np.float32) for i in ids])
