"""A stream of drawn people who walk from camera to camera: the data set that needs no download.

Walks -> looks -> pictures. A client is a camera; the cameras stand in a ring. A share of the people that a camera
meets in a task turn up at a camera next door one or two tasks later. Every picture is drawn when it is asked for, from
random numbers of its own, so any rank can open any task and finds the same bytes.

    python -m fedstil_mpi.data.synthetic.stream OUT --seed 1        # writes the images, to look at them
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedstil_mpi.config.synthetic import SyntheticOptions
from fedstil_mpi.data.pack.export import write_folder
from fedstil_mpi.data.streams.base import Images, Stream, Task
from fedstil_mpi.data.synthetic import appearance, cameras, rendering
from fedstil_mpi.data.synthetic.drifts import Drifts, progress, weather
from fedstil_mpi.data.synthetic.walks import stops, walk
from fedstil_mpi.util import seeding
from fedstil_mpi.util.errors import InputError

BATCH = 32
"""Pictures drawn at once: few enough to stay in the processor's cache."""
WARMUP_STRENGTH = 0.4
"""How much the server's cameras differ, relative to the clients'."""


class _Shot(NamedTuple):
    """One picture to take. With `crowd` it says all that the picture depends on."""

    split: str
    person: int
    client: int
    task: int
    number: int
    camera: int
    when: int
    """The task whose light the camera has: another than `task` where a walker is seen at another stop."""


class SyntheticStream(Stream):
    """The tasks of all clients. `number_of_people` is known without drawing; person ids are 0 to that number."""

    def __init__(self, options: SyntheticOptions, seed: int, *, tasks: int, height: int, width: int):
        """Images of height x width pixels; people are drawn for about twice the width. Raises InputError if too small."""
        for name, value, low in (("tasks", tasks, 1), ("height", height, 32), ("width", width, 16)):
            if value < low:
                raise InputError(f"synthetic data: {name} is {value}, expected {low} or more; raise it")
        self.options, self.seed = options, seed
        self.clients, self.tasks, self.height, self.width = options.clients, tasks, height, width
        self._people = walk(
            seed, clients=self.clients, tasks=tasks, size=options.people_per_task, walkers=options.walkers
        )
        self._stops = stops(self._people)
        self.number_of_people = len(self._stops)
        done = progress(options.drift_course, tasks)
        kinds = {
            "evening": options.drift * done,
            "haze": options.weather * weather(seed, tasks),
            "crowd": options.crowding * done,
            "winter": options.wardrobe * done,
            "wear": options.wear * done,
        }
        self._drifts = Drifts(**{kind: amount.astype(np.float32) for kind, amount in kinds.items()})

    def people(self, client: int, task: int) -> np.ndarray:
        return self._people[client, task].copy()

    def labels(self, client: int, task: int) -> dict[str, np.ndarray]:
        o = self.options
        counts = {"train": o.train_images, "query": o.query_images, "gallery": o.gallery_images}
        return {split: np.repeat(self._people[client, task], count) for split, count in counts.items()}

    def task(self, client: int, task: int) -> Task:
        o, people = self.options, self._people[client, task].tolist()
        splits = {
            split: [_Shot(split, p, client, task, i, client, task) for p in people for i in range(count)]
            for split, count in (("train", o.train_images), ("query", o.query_images))
        }
        splits["gallery"] = [shot for person in people for shot in self._gallery(person, client, task)]
        return Task(**{split: self._take("person", shots) for split, shots in splits.items()})

    def warmup(self) -> Images | None:
        o = self.options
        if o.warmup_people == 0:
            return None
        shots = [
            _Shot("warmup", person, 0, 0, i, (person + i) % o.warmup_cameras, 0)
            for person in range(o.warmup_people)
            for i in range(o.warmup_images)
        ]
        return self._take("warmup", shots)

    def _gallery(self, person: int, client: int, task: int) -> Iterator[_Shot]:
        """Seen at the other stops of the walk, the nearest in time first; without any, by a camera drawn by lot."""
        others = [stop for stop in self._stops[person] if stop[0] != client]
        others.sort(key=lambda stop: abs(stop[1] - task))
        if not others:
            lot = seeding.integer(self.seed, "synthetic", "gallery camera", person) % (self.clients - 1)
            others = [(lot + (lot >= client), task)]
        for number in range(self.options.gallery_images):
            camera, when = others[number % len(others)]
            yield _Shot("gallery", person, client, task, number, camera, when)

    def _take(self, crowd: str, shots: list[_Shot]) -> Images:
        """Takes the pictures; `crowd` tells the clients' people and cameras from the server's."""
        o, height, width = self.options, self.height, self.width
        pids, who = np.unique([shot.person for shot in shots], return_inverse=True)
        places, where = np.unique([shot.camera for shot in shots], return_inverse=True)
        met = [self._stops[person][0][1] if crowd == "person" else 0 for person in pids]
        draws = self._draws("person", crowd, pids, appearance.PERSON_DRAWS)
        people = appearance.identities(draws, o.colours, o.colour_jitter, self._drifts.at(met).winter)
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
            seen, drifts = traits[where[batch]], self._drifts.at([shot.when for shot in shots[batch]])
            occlusion = o.occlusion + (1 - o.occlusion) * drifts.crowd
            scene = cameras.crop(scenery, where[batch], draws[:, : cameras.CROP_DRAWS], height, width)
            poses = appearance.poses(seen, draws[:, cameras.CROP_DRAWS :], strength, occlusion, width / height)
            rendering.draw(scene, people[who[batch]], poses)
            pixels[batch] = cameras.photograph(scene, appearance.conditions(seen, strength, drifts), noise)
        return Images(pixels, pids[who].astype(np.int64), places[where].astype(np.int64))

    def _draws(self, what: str, crowd: str, ids: np.ndarray, count: int) -> np.ndarray:
        """Uniform numbers [len(ids), count] that describe persons or cameras."""
        purpose = ("synthetic", what, crowd)
        return np.stack([seeding.generator(self.seed, *purpose, int(i)).random(count, np.float32) for i in ids])


def main() -> None:
    """Writes a stream into a folder of PNG files."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("out", type=Path)
    for name, default in (("seed", 0), ("tasks", 6), ("height", 64), ("width", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    chosen = parser.parse_args()
    try:
        stream = SyntheticStream(
            SyntheticOptions(), chosen.seed, tasks=chosen.tasks, height=chosen.height, width=chosen.width
        )
        write_folder(stream, chosen.out)
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
