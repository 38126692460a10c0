"""What runs can share: the data stream, the ranks' placement, and, once they are there, the images and the start model.

Runs that differ only in what is done with these (method, training, memory, rounds) can use them one after the other: a
comparison then draws the images, warms up the model and passes the stem once for all of them.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from fedstil_mpi.comm.world import World
from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.data.sources import open_stream
from fedstil_mpi.data.streams.base import SPLITS, Stream, Task
from fedstil_mpi.data.streams.on_demand import TasksOnDemand
from fedstil_mpi.launch.placement import RankPlacement, assign_clients, place_rank, table
from fedstil_mpi.util.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from fedstil_mpi.models.network import Network


@dataclass
class SharedResources:
    """One rank's part of them."""

    settings: str
    """What runs must agree on to share it."""
    stream: Stream
    placement: RankPlacement
    placements: list[dict[str, Any]] | None
    """All ranks' placements, as rows of a table, on rank 0; elsewhere None."""
    tasks: dict[int, Sequence[Task]] = field(default_factory=dict)
    """The images of this rank's clients, as far as they are loaded or made."""
    network: "Network | None" = None
    """The start model, once it is there; runs copy its tail and share its stem, and leave both as they are."""
    representations: "dict[tuple[int, int, str], Tensor]" = field(default_factory=dict)
    """What the stem makes of the images of (client, task, split) without augmentation."""

    def tasks_of(self, client: int) -> Sequence[Task]:
        """A client's images, which may still be to be made."""
        if client not in self.tasks:
            self.tasks[client] = TasksOnDemand(self.stream, client)
        return self.tasks[client]

    def forget(self, client: int) -> None:
        """A client that another rank has from now on."""
        self.tasks.pop(client, None)
        for task in range(self.stream.tasks):
            for split in SPLITS:
                self.representations.pop((client, task, split), None)


def open_shared_resources(
    world: World, experiment: Experiment, before: SharedResources | None = None
) -> SharedResources:
    """The shared resources of this experiment: `before`, where they are the same. Collective: all ranks must call.

    Call before torch is imported, but with `before`: a process is placed, and given its GPU, only once. Raises
    InputError where the data or the placement cannot be used.
    """
    settings = _settings(experiment)
    if before is not None and before.settings == settings:
        return before
    with world.verdict():
        stream = open_stream(experiment.data, experiment.seed)
    if before is not None:
        with world.verdict():
            if stream.clients != before.stream.clients:
                raise InputError(
                    f"{experiment.name} has {stream.clients} clients after a run with {before.stream.clients}; "
                    "compare runs with equal numbers of clients, or start them one by one"
                )
        return SharedResources(settings, stream, before.placement, before.placements)
    wanted = experiment.placement
    with world.verdict():
        placement = place_rank(
            world,
            stream.clients,
            device=wanted.device,
            gpus_per_node=wanted.gpus_per_node,
            threads=wanted.threads,
        )
    return SharedResources(settings, stream, placement, world.gather_json(table([placement])[0]))


def reassign_clients(world: World, resources: SharedResources) -> None:
    """Share all clients out among the ranks that are left, each with the device and the threads it has had.

    Collective: all ranks must call.
    """
    clients = assign_clients(resources.stream.clients, world.size)[world.rank]
    resources.placement = replace(resources.placement, local_rank=world.local_rank, clients=clients)
    resources.placements = world.gather_json(table([resources.placement])[0])


def _settings(experiment: Experiment) -> str:
    first_contact = experiment.compression.first_contact  # after which the start model is what it has left of it
    parts = asdict(experiment.data), asdict(experiment.model), asdict(experiment.warmup)
    return json.dumps([experiment.seed, first_contact, *parts])
