"""What is known of a run before any image or weight is touched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.data.inspection.remarks import unknown_cameras
from fedstil_mpi.data.streams.base import Stream
from fedstil_mpi.evaluation.scopes import Scopes
from fedstil_mpi.federation import schedule
from fedstil_mpi.federation.participation import check_away
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.methods.base import MethodModule
from fedstil_mpi.util.errors import InputError

MOST_TURNS = 10**6
"""Rounds times clients in each; to plan so many takes minutes."""


@dataclass(frozen=True)
class Plan:
    """What every rank derives from the config and the stream's labels."""

    experiment: Experiment
    method: MethodModule
    schedule: Schedule
    num_classes: int
    scopes: Scopes

    @property
    def learners_experiment(self) -> Experiment:
        """The experiment as clients train it: on all clients' images a client has the steps and the memory of all of them."""
        experiment, clients = self.experiment, self.schedule.clients
        if not experiment.data.pooled:
            return experiment
        train = replace(experiment.train, steps=experiment.train.steps * clients)
        memory = replace(experiment.memory, size=experiment.memory.size * clients)
        return replace(experiment, train=train, memory=memory)


def make_plan(experiment: Experiment, method: MethodModule, stream: Stream) -> Plan:
    """The schedule and the number of classes, from labels alone.

    Raises InputError where the stream does not fit the config.
    """
    cells = list(product(range(stream.clients), range(stream.tasks)))
    labels = [stream.labels(*cell) for cell in cells]
    _check_images(cells, labels)
    largest = max(int(of_task["train"].max()) for of_task in labels)
    num_classes = experiment.model.num_classes or largest + 1
    if largest >= num_classes:
        raise InputError(
            f"model.num_classes = {num_classes} for {largest + 1} people to train on; set it to {largest + 1} or more, "
            "or leave it out"
        )
    refuse_mixed_protocols(experiment, *unknown_cameras(stream))
    r = experiment.rounds
    if r.clients_per_round is not None and r.clients_per_round > stream.clients:
        raise InputError(f"rounds.clients_per_round = {r.clients_per_round}, but there are {stream.clients} clients")
    check_away(experiment.participation.away, stream.clients)
    rounds = schedule.plan(
        experiment.seed,
        stream.clients,
        stream.tasks,
        r.per_task,
        r.total,
        r.clients_per_round,
        r.evaluate_every,
        experiment.participation,
        r.exchange_every,
    )
    for key, every in (("evaluate_every", r.evaluate_every), ("exchange_every", r.exchange_every)):
        if every is not None and every > rounds.total:
            raise InputError(f"rounds.{key} = {every}, but there are {rounds.total} rounds; set it to that or less")
    drawn = r.clients_per_round or stream.clients
    if rounds.total * drawn > MOST_TURNS:
        raise InputError(f"{rounds.total:,} rounds of {drawn:,} clients; expected at most {MOST_TURNS:,} in all")
    scopes = Scopes.of(experiment.evaluation.gallery, largest + 1, (of_task["query"] for of_task in labels))
    return Plan(experiment, method, rounds, num_classes, scopes)


def _check_images(cells: Sequence[tuple[int, int]], labels: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Every task needs a batch to train on, of which a batch norm can make something; some need not be searched."""
    for (client, task), of_task in zip(cells, labels, strict=True):
        if (images := len(of_task["train"])) < 2:
            raise InputError(
                f"client {client}, task {task} has {images} images to train on, expected at least 2; add images, or leave the task "
                "or the client out"
            )
    for split in ("query", "gallery"):
        if not any(len(of_task[split]) for of_task in labels):
            raise InputError(f"no task has {split} images: nothing can be searched; add some to one task at least")


def refuse_mixed_protocols(experiment: Experiment, unknown: int, images: int) -> None:
    """Refuse to mix two protocols: the Market-1501 rule for images whose camera is known, and none for the others."""
    evaluation = experiment.evaluation
    if 0 < unknown < images and evaluation.protocol == "market" and not evaluation.allow_unknown_cameras:
        raise InputError(
            f"the camera of {unknown:,} of {images:,} queries and gallery images is not known: evaluation.protocol=market would "
            "mix two protocols; name the cameras in the files' names, in cameras.csv or by data.camera_pattern, or set "
            "evaluation.allow_unknown_cameras=true"
        )
