"""How fast this host is: what an image costs it, measured on a model of the run's shape whose weights are random."""

import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from fedstil_mpi.client.adam import Adam
from fedstil_mpi.federation.plan import Plan
from fedstil_mpi.federation.start_model import build_network
from fedstil_mpi.models.network import Tail, trainable_parameters

TURNS = 3


def measure(plan: Plan) -> dict[str, float]:
    """CPU seconds of all threads for an image, by kind of pass (`client.learner.KINDS`): through the stem, a training step's
    share, through the tail to be searched."""
    network = build_network(plan.experiment, plan.num_classes, weights="none")
    data, train = plan.experiment.data, plan.experiment.train
    with torch.no_grad():
        images = torch.zeros(train.batch, 3, data.height, data.width)
        representations = network.stem(images)
    adam = Adam(trainable_parameters(network.tail).values(), train.lr, train.weight_decay)
    works = {
        "stem": torch.no_grad()(partial(network.stem, images)),
        "train": partial(_step, network.tail, adam, representations),
        "search": torch.no_grad()(partial(network.tail.features, representations)),
    }
    return {kind: _seconds(work) / train.batch for kind, work in works.items()}


def _step(tail: Tail, adam: Adam, representations: Tensor) -> None:
    scores, _ = tail.train()(representations)
    adam.clear()
    F.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.int64)).backward()
    adam.step()


def _seconds(work: Callable[[], object]) -> float:
    times = []
    for _ in range(TURNS + 1):  # the first chooses kernels
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return median(times[1:])
