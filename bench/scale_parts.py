"""A stream and a backbone that cost next to nothing, so that what is left is what grows with the number of clients.

K clients (`data.synthetic.clients`) stand in a ring; each meets two people a task, of K in all, and shares them with its
neighbours. Images are noise, a random projection is the stem, and the tail is a classifier: P = K x (P / K) weights, whatever
K is, where `LENGTH` in the environment is P / K, the length of a feature.
"""

import os

import numpy as np

from fedstil_mpi.data.streams.base import Images, Stream, Task

LENGTH = "SCALE_LENGTH"


class Ring(Stream):
    on_demand = True

    def __init__(self, clients: int, tasks: int, size: tuple[int, int]):
        self.clients, self.tasks, self.size = clients, tasks, size

    def pids(self, client: int, task: int) -> np.ndarray:
        return np.sort((client + task + np.arange(2)) % self.clients)

    def labels(self, client: int, task: int) -> dict[str, np.ndarray]:
        people = self.pids(client, task)
        return {"train": np.repeat(people, 4), "query": people, "gallery": people}

    def task(self, client: int, task: int) -> Task:
        noise = np.random.default_rng([client, task])

        def images(split: str, pids: np.ndarray) -> Images:
            pixels = noise.integers(0, 256, (len(pids), *self.size, 3), np.uint8)
            return Images(pixels, pids, np.full(len(pids), client + (split == "gallery")))

        return Task(**{split: images(split, pids) for split, pids in self.labels(client, task).items()})


def open_stream(data, seed):
    return Ring(data.synthetic.clients, data.tasks, (data.height, data.width))


def create(image_size):
    from torch import nn

    height, width = image_size
    return nn.Sequential(nn.Flatten(1), nn.Linear(3 * height * width, int(os.environ[LENGTH])), nn.ReLU())


def in_stages(model):
    from torch import nn

    from fedstil_mpi.models.backbones import Backbone

    return Backbone({"projection": model, "pool": nn.Identity()}, "pool", None, int(os.environ[LENGTH]))
