"""The model that every client starts from: built, loaded and warmed up by the server."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch

from fedstil_mpi.comm.world import World
from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.data.streams.base import Images, Stream
from fedstil_mpi.federation.plan import Plan
from fedstil_mpi.federation.warm_up import warm_up
from fedstil_mpi.launch.allocator import return_freed_memory
from fedstil_mpi.launch.placement import RankPlacement
from fedstil_mpi.models.network import Network, build, given, is_finite, network_state
from fedstil_mpi.models.torchvision_backbones import without_compiler
from fedstil_mpi.util import seeding
from fedstil_mpi.util.errors import InputError


class Kept(Protocol):
    """Where a run keeps the start model: a checkpoint."""

    @property
    def folder(self) -> Path: ...

    def read(self, name: str) -> dict[str, Any] | None:
        """A state tree. Raises InputError where it cannot be read."""


def start_network(
    world: World,
    plan: Plan,
    placement: RankPlacement,
    images: Images | None,
    start: Kept | None,
    stage: Callable[[str], None],
) -> Network:
    """The network every client starts from, on this rank's device. Collective: all ranks must call.

    images: what it is warmed up on, on the server; start: where it was kept, if it was. None: neither. stage: is told
    what begins.
    It is the same on every rank but for the server's warm-up, which first contact brings to the others. Downloaded
    weights are fetched by one rank per node; the others of the node read what it has stored.
    """
    experiment = plan.experiment
    stage("start model")
    torch.set_num_threads(placement.threads)
    torch.backends.cudnn.deterministic = True
    with world.verdict():
        network = build_network(experiment, plan.num_classes) if world.local_rank == 0 else None
    with world.verdict():
        network = network or build_network(experiment, plan.num_classes)
        if start is not None:
            load_network(network, start)
    network.stem.to(placement.device)
    network.tail.to(placement.device)
    if images is not None:
        stage(f"warm-up of the start model, {experiment.warmup.steps} steps")
        with without_compiler(experiment.model.backbone):
            warm_up(network, images, experiment.warmup, experiment.seed)
        return_freed_memory()
    with world.verdict():
        check_finite(network, warmed_up=experiment.warmup.steps > 0)
    return network


def check_finite(network: Network, *, warmed_up: bool) -> None:
    """Raise InputError where the start model has diverged, or was given weights that had."""
    if not is_finite(network_state(network).values()):
        remedy = "its warm-up has diverged: lower warmup.lr" if warmed_up else "choose other weights"
        raise InputError(f"the start model has values that are not finite; {remedy}")


@torch.no_grad()
def load_network(network: Network, start: Kept) -> bool:
    """Fill the start model from where it was kept; returns whether that changed it. Not collective.

    Raises InputError where it does not fit.
    """
    kept = (start.read("network") or {}).get("network", {})
    state = network_state(network)
    if {name: t.shape for name, t in kept.items()} != {name: t.shape for name, t in state.items()}:
        raise InputError(f"{start.folder} holds another model than the config's; choose another name= to start again")
    changed = False
    for name, tensor in state.items():
        changed |= not torch.equal(tensor.cpu(), kept[name])
        tensor.copy_(kept[name])
    return changed


def warmup_images(plan: Plan, stream: Stream) -> Images | None:
    """What the start model is warmed up on; None without a warm-up. Raises InputError where the stream has no such images."""
    experiment = plan.experiment
    images = stream.warmup() if experiment.warmup.steps else None
    if experiment.warmup.steps and images is None:
        raise InputError(f"data.kind {experiment.data.kind} has no images for a warm-up; set warmup.steps=0")
    return images


def build_network(experiment: Experiment, num_classes: int, weights: str | None = None) -> Network:
    """The start model, before a warm-up. weights: instead of the config's. Raises InputError where it cannot be built."""
    model, data = experiment.model, experiment.data
    return build(
        model.backbone,
        num_classes=num_classes,
        image_size=(data.height, data.width),
        split=model.split,
        last_stride=model.last_stride,
        neck=model.neck,
        weights=model.weights if weights is None else weights,
        seed=seeding.integer(experiment.seed, "model"),
        precision=model.precision,
    )


def blank_network(experiment: Experiment, num_classes: int) -> Network:
    """The start model without values, on the device meta; nothing is downloaded or read."""
    with torch.device("meta"), without_compiler(experiment.model.backbone):
        network = build_network(experiment, num_classes, weights="none")
    return network if experiment.model.weights == "none" else replace(network, provided=given(network))
