"""A stream and a backbone of which peers can be given the same features: the stem hands on 512 of an image's numbers.

Each of K clients (`data.synthetic.clients`) trains on four images of two people, of `model.num_classes` in all, which other
clients may have met as well. A person is a random image, and what is seen of it is that and noise.
"""

import os

import numpy as np
from torch import nn

from fedstil_mpi.data.streams.base import Images, Stream, Task
from fedstil_mpi.models.backbones import Backbone

FEATURES = 512
IMAGES = 4
"""Of a person."""
PEOPLE = "PEERS_PEOPLE"
"""In the environment: how many there are, the width of the classifier."""


class Strangers(Stream):
    tasks = 1

    def __init__(self, clients: int, size: tuple[int, int], people: int, seed: int):
        self.clients, self.size, self.people, self.seed = clients, size, people, seed

    def pids(self, client: int, task: int) -> np.ndarray:
        return np.sort((2 * client + np.arange(2)) % self.people)

    def labels(self, client: int, task: int) -> dict[str, np.ndarray]:
        people = self.pids(client, task)
        return {"train": np.repeat(people, IMAGES), "query": people, "gallery": people}

    def task(self, client: int, task: int) -> Task:
        noise = np.random.default_rng([self.seed, client])
        shape = (*self.size, 3)

        def images(split: str, pids: np.ndarray) -> Images:
            looks = np.stack(
                [np.random.default_rng([self.seed, self.clients + pid]).normal(size=shape) for pid in pids]
            )
            pixels = 128 + 30 * (looks + noise.normal(size=looks.shape))
            camera = client + (split == "gallery")
            return Images(pixels.clip(0, 255).astype(np.uint8), pids, np.full(len(pids), camera))

        return Task(**{split: images(split, pids) for split, pids in self.labels(client, task).items()})


def open_stream(data, seed):
    return Strangers(data.synthetic.clients, (data.height, data.width), int(os.environ[PEOPLE]), seed)


class First(nn.Module):
    """Of [n, ...] the first numbers, [n, FEATURES]."""

    def forward(self, images):
        return images.flatten(1)[:, :FEATURES]


def create(image_size):
    return nn.Sequential(First())


def in_stages(model):
    return Backbone({"projection": model, "pool": nn.Identity()}, "pool", None, FEATURES)
