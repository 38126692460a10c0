"""A federation small enough to train in milliseconds, played in one process without MPI."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from fedstil_mpi import methods
from fedstil_mpi.client.learner import Learner
from fedstil_mpi.client.local_training import Batch
from fedstil_mpi.client.rehearsal import Samples
from fedstil_mpi.comm.exchange import InProcessExchange
from fedstil_mpi.comm.flat import Layout, Part
from fedstil_mpi.comm.ledger import DOWN, HEADER_BYTES, UP, Ledger
from fedstil_mpi.config import loading
from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.data.streams.base import Images, Task
from fedstil_mpi.evaluation.search import client_gallery, evaluate, gather
from fedstil_mpi.methods.aids.prototypes import PrototypeClient, PrototypeServer, add_parts
from fedstil_mpi.methods.base import Client, Server, Setup, Traffic
from fedstil_mpi.models.network import Network, Stem, Tail, trainable_parameters

CLASSES = 12
SHAPE = (4, 8, 4)
"""Of a representation of an image of 16 x 8 pixels."""


def network(seed: int = 0, neck: str = "bnneck") -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stem = Stem({"conv": nn.Conv2d(3, 4, 3, 2, 1), "norm": nn.BatchNorm2d(4), "relu": nn.ReLU()})
        tail = Tail(
            {
                "conv": nn.Conv2d(4, 6, 3, bias=False),
                "norm": nn.BatchNorm2d(6),
                "relu": nn.ReLU(),
                "drop": nn.Dropout(0.1),
                "pool": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1)),
            },
            6,
            CLASSES,
            neck,
        )
    return Network(stem, tail, frozenset())


def task(*people: int, images: int = 4, seed: int = 0) -> Task:
    """Noise pictures; `images` training images a person, one query and one gallery image."""
    generator = np.random.default_rng(seed)

    def split(count: int, camera: int) -> Images:
        pids = np.repeat(np.array(people, np.int64), count)
        pixels = generator.integers(0, 256, (len(pids), 16, 8, 3), np.uint8)
        return Images(pixels, pids, np.full(len(pids), camera, np.int64))

    return Task(split(images, 0), split(1, 0), split(1, 1))


def experiment(settings: dict[str, Any] | None = None, method: str = "single", preset: str = "best") -> Experiment:
    """A checked experiment from {"section.key": value} above the method's preset."""
    tree = OmegaConf.create({"method": {"name": method, "preset": preset}})
    for key, value in (settings or {}).items():
        OmegaConf.update(tree, key, value)
    module = methods.load(method)
    return loading.resolve(OmegaConf.to_container(tree), module.Options, module.PRESETS)


@dataclass
class Federation:
    """Both sides of a method, and the wires between them, which let through and book only what `traffic` says."""

    clients: list[Client]
    server: Server
    traffic: Traffic
    ledger: Ledger = field(default_factory=Ledger)

    def distribute(self, round: int, online: Sequence[int]) -> None:
        """In the first round nothing is sent."""
        knowledge = self.server.knowledge(list(online)) if round > 1 else {}
        parts = self.traffic.down if round > 1 else ()
        assert set(knowledge) == {part.kind for part in parts}
        for row, client in enumerate(online):
            message = {part.kind: knowledge[part.kind] if part.shared else knowledge[part.kind][row] for part in parts}
            self.clients[client].absorb(self._through(round, client, DOWN, parts, message))

    def collect(self, round: int, online: Sequence[int]) -> None:
        own = [self._through(round, c, UP, self.traffic.up, self.clients[c].update()) for c in online]
        ragged = {part.kind: [message[part.kind] for message in own] for part in self.traffic.up}
        fixed = {part.kind: torch.stack(ragged[part.kind]) for part in self.traffic.up if not part.ragged}
        self.server.collect(list(online), ragged | fixed)

    def play(self, round: int, online: Sequence[int]) -> None:
        """A whole round with training."""
        self.distribute(round, online)
        for client in online:
            side = self.clients[client]
            side.learner.begin_round()
            side.begin()
            side.learner.train(round, side.penalty, side.context())
            side.end()
        self.collect(round, online)

    def search(self, by_task: bool = False) -> np.ndarray:
        """What all clients find, [clients, tasks, metrics]; by_task: with a model for each task."""
        tails = [side.tail_for if by_task else None for side in self.clients]
        learners = [side.learner for side in self.clients]
        global_gallery = None
        if learners[0].experiment.evaluation.gallery == "all":
            own = [client_gallery(learner, tail_for) for learner, tail_for in zip(learners, tails, strict=True)]
            global_gallery = gather(InProcessExchange().share, own, learners[0].tail.classifier.in_features)
        return np.stack([evaluate(*each, global_gallery) for each in zip(learners, tails, strict=True)])

    def _through(
        self, round: int, client: int, direction: str, parts: tuple[Part, ...], message: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        assert set(message) == {part.kind for part in parts}
        for part in parts:
            value = message[part.kind]
            assert value.dtype == part.dtype
            assert tuple(value.shape) == ((len(value), part.scalars) if part.ragged else (part.scalars,))
            self.ledger.book(round, client, direction, part.kind, value.numel() * value.element_size())
            if part.ragged:
                self.ledger.book(round, client, direction, "header", HEADER_BYTES)
        return {kind: value.clone() for kind, value in message.items()}


def federation(config: Experiment, streams: Sequence[Sequence[Task]], start: Network | None = None) -> Federation:
    """A client for every stream."""
    start = start or network()
    module, options = methods.load(config.method.name), config.method.options
    travelling = module.Client.travelling(start.tail, options)
    layout = Layout.of(travelling)
    setup = Setup(len(streams), layout, prod(SHAPE), layout.pack(travelling))
    traffic = module.Client.traffic(setup, options)
    clients: list[Client] = []
    for number, tasks in enumerate(streams):
        learner = Learner(number, config, tasks, start)
        clients.append(module.Client.create(learner, setup, options))
        learner.start_from(start)
    server = module.Server(setup, options)
    if not config.prototypes.exchange:
        return Federation(clients, server, traffic)
    relay = PrototypeServer(server)
    return Federation([PrototypeClient(side) for side in clients], relay, add_parts(traffic, setup))


def penalty(side: Client, batch: Batch, scores: Tensor) -> Tensor | None:
    """A side's extra loss for a batch, at the current weights."""
    context = side.context()
    if context is None:
        return None
    return side.penalty(trainable_parameters(side.learner.tail), context, batch, scores)


def batch(*pids: int, seed: int = 0) -> Batch:
    """New samples of these people, of noise."""
    representations = torch.randn(len(pids), *SHAPE, generator=torch.Generator().manual_seed(seed))
    people = torch.tensor(pids)
    return Batch(Samples(representations, people, torch.zeros_like(people)), torch.full_like(people, -1))
