"""A stream of drawn people who walk from camera to camera: the data set that needs no download.

A client is a camera; the cameras stand in a ring, or in pairs. A share of the people that a camera meets in a task turn up at a
camera next door one or two tasks later. Strangers are searched in one task of one camera, and never trained on. Every picture is drawn when it is asked for, so any rank can open any task and finds the
same bytes. To look at the pictures:

    python -m fedstil_mpi.data pack configs/quickstart.yaml seed=1 --out drawn.h5
    python -m fedstil_mpi.data unpack drawn.h5 FOLDER
"""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from fedstil_mpi.config.synthetic import SyntheticOptions
from fedstil_mpi.data.streams.base import Images, Stream, Task
from fedstil_mpi.data.synthetic.drifts import Drifts, progress, weather
from fedstil_mpi.data.synthetic.pictures import Painter, Shot
from fedstil_mpi.data.synthetic.walks import stops, walk
from fedstil_mpi.util import seeding
from fedstil_mpi.util.errors import InputError


class SyntheticStream(Stream):
    """The tasks of all clients. Person ids count from 0 without gaps, strangers' behind those of all others."""

    on_demand = True

    def __init__(self, options: SyntheticOptions, seed: int, *, tasks: int, height: int, width: int):
        """Images of height x width pixels; people are drawn for about twice the width. Raises InputError if too small."""
        for name, value, low in (("tasks", tasks, 1), ("height", height, 32), ("width", width, 16)):
            if value < low:
                raise InputError(f"synthetic data: {name} is {value}, expected {low} or more; raise it")
        self.options, self.seed, self.clients, self.tasks = options, seed, options.clients, tasks
        self._pids = walk(
            seed,
            clients=self.clients,
            tasks=tasks,
            size=options.people_per_task,
            walkers=options.walkers,
            neighbours=options.neighbours,
        )
        strangers = np.arange(self.clients * tasks * options.strangers).reshape(self.clients, tasks, options.strangers)
        self._searched = np.concatenate([self._pids, self._pids.max() + 1 + strangers], axis=2)
        self._size = height, width

    def pids(self, client: int, task: int) -> np.ndarray:
        return self._pids[client, task]

    def labels(self, client: int, task: int) -> dict[str, np.ndarray]:
        o, searched = self.options, self._searched[client, task]
        return {
            "train": np.repeat(self._pids[client, task], o.train_images),
            "query": np.repeat(searched, o.query_images),
            "gallery": np.repeat(searched, o.gallery_images),
        }

    def task(self, client: int, task: int) -> Task:
        o, trained, searched = self.options, self._pids[client, task].tolist(), self._searched[client, task].tolist()
        splits = {
            split: [Shot(split, p, client, task, i, client, task) for p in people for i in range(count)]
            for split, people, count in (("train", trained, o.train_images), ("query", searched, o.query_images))
        }
        splits["gallery"] = [shot for person in searched for shot in self._gallery(person, client, task)]
        return Task(**{split: self._images("person", shots) for split, shots in splits.items()})

    def warmup(self) -> Images | None:
        o = self.options
        if o.warmup_people == 0:
            return None
        shots = [
            Shot("warmup", person, 0, 0, i, (person + i) % o.warmup_cameras, 0)
            for person in range(o.warmup_people)
            for i in range(o.warmup_images)
        ]
        return self._images("warmup", shots)

    def _gallery(self, person: int, client: int, task: int) -> Iterator[Shot]:
        """Seen at the other stops of the walk, the nearest in time first; without any, by a camera chosen at random."""
        others = [stop for stop in self._stops[person] if stop[0] != client]
        others.sort(key=lambda stop: abs(stop[1] - task))
        if not others:
            drawn = seeding.integer(self.seed, "synthetic", "gallery camera", person) % (self.clients - 1)
            others = [(drawn + (drawn >= client), task)]
        for number in range(self.options.gallery_images):
            camera, when = others[number % len(others)]
            yield Shot("gallery", person, client, task, number, camera, when)

    @cached_property
    def _stops(self) -> list[list[tuple[int, int]]]:
        return stops(self._searched)

    @cached_property
    def _painter(self) -> Painter:
        first_met = [visits[0][1] for visits in self._stops]
        return Painter(self.options, self.seed, _drifts(self.options, self.seed, self.tasks), first_met, self._size)

    def _images(self, crowd: str, shots: Sequence[Shot]) -> Images:
        return Images(*self._painter.draw(crowd, shots))


def _drifts(options: SyntheticOptions, seed: int, tasks: int) -> Drifts:
    done = progress(options.drift_course, tasks)
    kinds = {
        "evening": options.drift * done,
        "haze": options.weather * weather(seed, tasks),
        "crowd": options.crowding * done,
        "winter": options.wardrobe * done,
        "wear": options.wear * done,
    }
    return Drifts(**{kind: amount.astype(np.float32) for kind, amount in kinds.items()})
