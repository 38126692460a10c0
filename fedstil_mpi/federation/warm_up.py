"""The server warms a model up on its own labelled images, before the first round."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from fedstil_mpi.client.augmentation import Augmentation, Streams
from fedstil_mpi.client.representations import augmented, on_device
from fedstil_mpi.config.schema import Warmup
from fedstil_mpi.data.streams.base import Images
from fedstil_mpi.models.losses import smoothed_cross_entropy
from fedstil_mpi.models.network import Network
from fedstil_mpi.util import seeding


def warm_up(network: Network, images: Images, settings: Warmup, seed: int) -> float:
    """Train stem and trunk of `network` in place to classify the people of `images`; returns the last loss.

    The classifier used for it has one row per person of `images` and is thrown away; the network's own stays as it was.
    """
    device = next(network.tail.parameters()).device
    backbone = nn.Sequential(*network.stem.children(), *network.tail.trunk.children())
    targets = torch.from_numpy(np.unique(images.pids, return_inverse=True)[1]).to(device)
    torch.manual_seed(seeding.integer(seed, "warm-up"))
    features = network.tail.classifier.in_features
    head = nn.Sequential(nn.BatchNorm1d(features), nn.Linear(features, int(targets.max()) + 1)).to(device)
    learns = {parameter: parameter.requires_grad for parameter in backbone.parameters()}
    parameters = [*backbone.requires_grad_(True).parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, settings.lr, weight_decay=1e-4, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, total_steps=settings.steps)
    how, streams = Augmentation(level="default"), Streams.of(seeding.integer(seed, "warm-up batches"))
    backbone.train()
    with computing_threads(settings.threads):
        for _ in range(settings.steps):
            index = torch.randint(len(targets), (settings.batch,), generator=streams.level)
            batch = augmented(on_device(images.pixels[index.numpy()], device), how, streams)
            loss = smoothed_cross_entropy(head(backbone(batch)), targets[index.to(device)], 0.1)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    for parameter, before in learns.items():
        parameter.requires_grad_(before)
    network.stem.eval()
    return loss.item()


@contextmanager
def computing_threads(number: int) -> Iterator[None]:
    """Within the block torch computes with so many threads: how a sum is split among them decides its last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
