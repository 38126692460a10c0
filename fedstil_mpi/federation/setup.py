"""From a config to a federation that is ready for its first round: the model, the clients, the server, the wires."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fedstil_mpi.checkpoints.store import Checkpoint
from fedstil_mpi.client.learner import Learner
from fedstil_mpi.comm.cuda import is_cuda_aware
from fedstil_mpi.comm.exchange import Exchange
from fedstil_mpi.comm.world import World
from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.data.streams.base import Images, Stream, Task
from fedstil_mpi.federation import schedule
from fedstil_mpi.federation.messages import wire
from fedstil_mpi.federation.participation import check_away
from fedstil_mpi.federation.rounds import Federation
from fedstil_mpi.federation.shared_resources import SharedResources
from fedstil_mpi.federation.warm_up import warm_up
from fedstil_mpi.launch.placement import RankPlacement, assign_clients
from fedstil_mpi.methods.aids.prototypes import PrototypeClient, PrototypeServer
from fedstil_mpi.methods.base import Client, MethodModule, Server
from fedstil_mpi.models.network import Network, build, network_state
from fedstil_mpi.util import seeding
from fedstil_mpi.util.clock import Clock
from fedstil_mpi.util.errors import InputError


@dataclass(frozen=True)
class Plan:
    """What every rank derives from the config and the stream's labels, before any image or weight is touched."""

    experiment: Experiment
    method: MethodModule
    schedule: schedule.Schedule
    num_classes: int


def make_plan(experiment: Experiment, method: MethodModule, stream: Stream) -> Plan:
    """Raises InputError where the stream does not fit the config."""
    largest = max(int(stream.pids(c, t).max()) for c in range(stream.clients) for t in range(stream.tasks))
    num_classes = experiment.model.num_classes or largest + 1
    if largest >= num_classes:
        raise InputError(
            f"person id {largest} does not fit model.num_classes = {num_classes}; set it to {largest + 1} or more, "
            "or leave it out"
        )
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
    )
    return Plan(experiment, method, rounds, num_classes)


def load_data_and_model(world: World, plan: Plan, resources: SharedResources, start: Checkpoint | None = None) -> None:
    """Bring the images and the start model into the scene, unless they are there. Collective: all ranks must call.

    start: where the start model was kept, if it was: it is not made again then.
    """
    with world.verdict():
        missing = [client for client in resources.placement.clients if client not in resources.tasks]
        resources.tasks |= load_tasks(resources.stream, missing)
    if resources.network is None:
        resources.network = start_network(world, plan, resources.stream, resources.placement, start)
    elif start is not None:
        with world.verdict():
            if load_network(resources.network, start):
                resources.representations.clear()  # they are another stem's


def load_tasks(stream: Stream, clients: Sequence[int]) -> dict[int, list[Task]]:
    """All images of these clients. Raises InputError naming the first file or task that cannot be used."""
    tasks = {client: [stream.task(client, task) for task in range(stream.tasks)] for client in clients}
    for client, of_client in tasks.items():
        for number, task in enumerate(of_client):
            for split, least in (("train", 2), ("query", 1), ("gallery", 1)):
                images = getattr(task, split)
                if len(images) < least:
                    raise InputError(
                        f"client {client}, task {number}: {len(images)} {split} images, expected at least {least}; "
                        "add images or leave the task out"
                    )
    return tasks


def start_network(
    world: World, plan: Plan, stream: Stream, placement: RankPlacement, start: Checkpoint | None = None
) -> Network:
    """The network every client starts from, on this rank's device. Collective: all ranks must call.

    It is the same on every rank but for the server's warm-up, which first contact brings to the others. Downloaded
    weights are fetched by one rank per node; the others of the node read what it has stored.
    """
    experiment = plan.experiment
    torch.set_num_threads(placement.threads)
    torch.backends.cudnn.deterministic = True
    with world.verdict():
        network = build_network(plan) if world.local_rank == 0 else None
    with world.verdict():
        network = network or build_network(plan)
        images = warmup_images(plan, stream) if world.is_server and start is None else None
        if start is not None:
            load_network(network, start)
    network.stem.to(placement.device)
    network.tail.to(placement.device)
    if images is not None:
        warm_up(network, images, experiment.warmup, experiment.seed)
    return network


@torch.no_grad()
def load_network(network: Network, start: Checkpoint) -> bool:
    """Fill the start model from where it was kept; returns whether that changed it. Not collective.

    Raises InputError where it does not fit.
    """
    kept = (start.read("network") or {}).get("network", {})
    state = network_state(network)
    if {name: t.shape for name, t in kept.items()} != {name: t.shape for name, t in state.items()}:
        raise InputError(f"{start.folder} holds another model than the config's; remove it to start anew")
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


def build_network(plan: Plan, weights: str | None = None) -> Network:
    """The start model, before a warm-up. weights: instead of the config's. Raises InputError where it cannot be built."""
    model, data = plan.experiment.model, plan.experiment.data
    return build(
        model.backbone,
        num_classes=plan.num_classes,
        image_size=(data.height, data.width),
        split=model.split,
        last_stride=model.last_stride,
        neck=model.neck,
        weights=model.weights if weights is None else weights,
        seed=seeding.integer(plan.experiment.seed, "model"),
    )


def assemble(world: World, plan: Plan, resources: SharedResources) -> Federation:
    """Build both sides of the method in a furnished scene and connect them. Collective: all ranks must call."""
    experiment, method, placement, network = plan.experiment, plan.method, resources.placement, resources.network
    assert network is not None
    options, wires = experiment.method.options, wire(experiment, method, plan.schedule.clients, network)
    clients_of = assign_clients(plan.schedule.clients, world.size)
    clock = Clock()
    exchange = Exchange(world, clients_of, torch.device(placement.device), clock, cuda_aware=is_cuda_aware())

    clients: dict[int, Client] = {}
    for client in placement.clients:
        learner = Learner(client, experiment, resources.tasks[client], network, resources.representations)
        clients[client] = method.Client.create(learner, wires.setup, options)
    server: Server | None = method.Server(wires.setup, options) if world.is_server else None
    if experiment.prototypes.exchange:
        clients = {client: PrototypeClient(side) for client, side in clients.items()}
        server = PrototypeServer(server) if server is not None else None
    return Federation(
        world=world,
        schedule=plan.schedule,
        exchange=exchange,
        contact=wires.contact,
        traffic=wires.traffic,
        task_aware=method.Client.task_aware,
        gallery=experiment.evaluation.gallery,
        clients=clients,
        server=server,
        record=None,
        clock=clock,
    )
