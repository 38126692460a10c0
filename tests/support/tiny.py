"""A federation small enough to train in milliseconds, played in one process without MPI."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from fedstil_mpi import methods
from fedstil_mpi.client.batches import Batch
from fedstil_mpi.client.learner import Learner
from fedstil_mpi.client.rehearsal import Samples
from fedstil_mpi.comm.exchange import InProcessExchange
from fedstil_mpi.comm.ledger import Ledger
from fedstil_mpi.config import loading
from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.data.streams.base import Images, Task
from fedstil_mpi.evaluation.scopes import Scopes
from fedstil_mpi.evaluation.search import Search, TailFor
from fedstil_mpi.federation import rounds, state
from fedstil_mpi.federation.messages import message_schema
from fedstil_mpi.federation.observer import Observer
from fedstil_mpi.federation.plan import Plan
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.federation.setup import connect
from fedstil_mpi.federation.trainer import OneByOne
from fedstil_mpi.methods.base import Client
from fedstil_mpi.models.network import Network, Stem, Tail, trainable_parameters

CLASSES = 12
SHAPE = (4, 8, 4)
"""Shape of the representation of an image of 16 x 8 pixels."""


def network(seed: int = 0, neck: str = "bnneck", precision: str = "float32") -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stem = Stem({"conv": nn.Conv2d(3, 4, 3, 2, 1), "norm": nn.BatchNorm2d(4), "relu": nn.ReLU()}, precision)
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
            precision,
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


class Found(Observer):
    """Keeps the newest metrics."""

    metrics: np.ndarray

    def evaluation(self, round: int, view: str, metrics: np.ndarray | None) -> None:
        assert metrics is not None
        self.metrics = metrics


class Federation:
    """The real rounds in one process, a step at a time, among clients that have the start model already."""

    def __init__(self, parts: state.Federation):
        self.parts = parts
        self.parts.observer = self.found = Found()
        self.clients = list(parts.clients.values())
        assert parts.server is not None
        self.server, self.traffic = parts.server, parts.traffic
        for side in self.clients:
            side.learner.start_from(parts.initial_model.network.tail.state_dict())
        parts.initial_model.met.update(parts.clients)

    @property
    def ledger(self) -> Ledger:
        return self.parts.exchange.ledger

    def distribute(self, round: int, online: Sequence[int]) -> None:
        """In the first round nothing is sent."""
        rounds.distribute(self.parts, round, list(online))

    def learn(self, round: int, online: Sequence[int]) -> None:
        rounds.learn(self.parts, round, list(online), rounds.NoCheckpoints())

    def collect(self, round: int, online: Sequence[int]) -> None:
        rounds.collect(self.parts, round, list(online))

    def play(self, round: int, online: Sequence[int]) -> None:
        """A whole round without searches."""
        self.distribute(round, online)
        self.learn(round, online)
        self.collect(round, online)

    def search(self, by_task: bool = False) -> np.ndarray:
        """What all clients find, [clients, scopes, tasks, metrics]; by_task: with a model for each task."""
        rounds.search(self.parts, self.parts.clients, 1, served=False, by_task=by_task)
        return self.found.metrics


def federation(config: Experiment, streams: Sequence[Sequence[Task]], start: Network | None = None) -> Federation:
    """A client for every stream."""
    start = start or network()
    config = replace(config, data=replace(config.data, height=16, width=8))
    learners = [Learner(number, config, tasks, start) for number, tasks in enumerate(streams)]
    r = config.rounds
    schedule = Schedule(
        1, len(streams), len(streams[0]), r.per_task, 100, len(streams), 1, exchange_every=r.exchange_every
    )
    plan = Plan(config, methods.load(config.method.name), schedule, CLASSES, Scopes(config.evaluation.gallery))
    schema = message_schema(config, plan.method, len(streams), start)
    return Federation(connect(plan, schema, dict(enumerate(learners)), InProcessExchange(), OneByOne(state.nowhere)))


def play_alike(one: Federation, other: Federation, last: int, online: Sequence[int]) -> None:
    """Rounds up to this one in both, after which clients have the same models and as many bytes were sent."""
    for number in range(1, last + 1):
        for result in (one, other):
            result.play(number, online)
    for here, there in zip(one.clients, other.clients, strict=True):
        assert here.learner.fingerprint() == there.learner.fingerprint()
    assert one.ledger.entries == other.ledger.entries


def search(learner: Learner, tail_for: TailFor | None = None) -> np.ndarray:
    """What a client finds in its tasks' galleries, [tasks, metrics]."""
    return Search(learner, tail_for).evaluate(Scopes(["task"]), None)[0]


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
