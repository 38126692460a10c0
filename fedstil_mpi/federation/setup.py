"""From a config to a federation that is ready for its first round: the model, the clients, the server.

In this order: `plan.make_plan` (of numbers and labels alone), `load_data_and_model`, `assemble`.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fedstil_mpi.client.learner import Learner
from fedstil_mpi.comm.column_exchange import ColumnExchange
from fedstil_mpi.comm.exchange import Exchange, InProcessExchange
from fedstil_mpi.comm.flat import to_host
from fedstil_mpi.comm.mpi_exchange import MpiExchange
from fedstil_mpi.comm.world import World
from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.data.inspection.remarks import count_unknown
from fedstil_mpi.data.streams.base import Stream, Task
from fedstil_mpi.evaluation.searchable import is_searchable
from fedstil_mpi.federation.balance import dealing
from fedstil_mpi.federation.messages import MessageSchema, message_schema
from fedstil_mpi.federation.moving import Moving, take_places
from fedstil_mpi.federation.plan import Plan, refuse_mixed_protocols
from fedstil_mpi.federation.roster import Roster
from fedstil_mpi.federation.server_place import places
from fedstil_mpi.federation.shared_resources import SharedResources
from fedstil_mpi.federation.start_model import Kept, load_network, start_network, warmup_images
from fedstil_mpi.federation.state import Federation
from fedstil_mpi.federation.trainer import LocalTrainer, OneByOne
from fedstil_mpi.launch.placement import assign_clients
from fedstil_mpi.launch.tracing import ranges
from fedstil_mpi.methods.aids import averaging
from fedstil_mpi.methods.aids.comparing import ComparingClient
from fedstil_mpi.methods.aids.compression import CompressedClient, CompressedServer
from fedstil_mpi.methods.aids.prototypes import PrototypeClient, PrototypeServer
from fedstil_mpi.methods.base import Client, MethodModule, Server
from fedstil_mpi.methods.columns import ColumnServer
from fedstil_mpi.models.network import Tail
from fedstil_mpi.util.clock import Clock
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.shelf import Shelf


def load_data_and_model(
    world: World, plan: Plan, resources: SharedResources, start: Kept | None, stage: Callable[[str], None]
) -> None:
    """Bring the images and the start model to where they are shared, unless they are there. Collective: all ranks must call.

    start: where the start model was kept, if it was: it is not made again then. stage: is told what begins.
    """
    warms_up = world.is_server and resources.network is None and start is None
    if resources.network is None:
        stage("images")
    for client in resources.tasks.keys() - set(resources.placement.clients):  # the last run has brought them here
        resources.forget(client)
    with world.verdict():
        if not resources.stream.on_demand:
            missing = [client for client in resources.placement.clients if client not in resources.tasks]
            resources.tasks |= load_tasks(resources.stream, missing)
        images = warmup_images(plan, resources.stream) if warms_up else None
    if not resources.stream.on_demand:
        clients = list(resources.tasks.values())
        check_cameras(world, plan, clients)
        check_searchable(world, plan, clients)
    if resources.network is None:
        resources.network = start_network(world, plan, resources.placement, images, start, stage)
    elif start is not None:
        with world.verdict():
            if load_network(resources.network, start):
                resources.representations.clear()  # they are another stem's


def check_cameras(world: World, plan: Plan, clients: Sequence[Sequence[Task]]) -> None:
    """As `make_plan` does, for streams that do not know their cameras before. Collective: all ranks must call."""
    tested = (images.cameras for tasks in clients for task in tasks for images in (task.query, task.gallery))
    counts = world.gather_json(count_unknown(tested))
    with world.verdict():
        if counts is not None:
            refuse_mixed_protocols(plan.experiment, *map(sum, zip(*counts, strict=True)))


def check_searchable(world: World, plan: Plan, clients: Sequence[Sequence[Task]]) -> None:
    """End the run where no query of any client can have a match. Collective: all ranks must call."""
    evaluation = plan.experiment.evaluation
    for scope in evaluation.gallery:
        own = is_searchable(clients, scope, evaluation.protocol, world.allgather_rows)
        somewhere = world.any_rank(own)
        with world.verdict():
            if not somewhere:
                raise InputError(
                    f"no query has a match in its gallery (evaluation.gallery={scope}, {evaluation.protocol}): expected a gallery "
                    "image of a query's person, at another camera where cameras are known; correct the data or its cameras"
                )


def load_tasks(stream: Stream, clients: Sequence[int]) -> dict[int, list[Task]]:
    """All images of these clients. Raises InputError naming the first file that cannot be used."""
    return {client: [stream.task(client, task) for task in range(stream.tasks)] for client in clients}


def assemble(world: World, plan: Plan, resources: SharedResources) -> Federation:
    """The federation of a run, once data and model are there. Collective: all ranks must call."""
    network = resources.network
    assert network is not None
    with world.verdict():
        clock = Clock(ranges(plan.experiment.placement.nvtx))

    def learner_of(client: int) -> Learner:
        tasks = resources.tasks_of(client)
        return Learner(client, plan.learners_experiment, tasks, network, resources.representations)

    learners = Roster(resources.placement.clients, learner_of)
    with world.verdict():
        schema = message_schema(plan.experiment, plan.method, plan.schedule.clients, network)
        where = places(plan.experiment, plan.method, schema, world.size)
    clients_of = assign_clients(plan.schedule.clients, world.size)
    exchange = open_exchange(world, clients_of, schema, clock, in_columns=where.shared)
    schema = replace(schema, setup=replace(schema.setup, in_files=where.in_files, at_once=where.at_once))
    models = plan.experiment.folder if plan.experiment.save_models else None
    shelf: Shelf[tuple[int, Hashable]] | None = Shelf() if where.in_files else None
    dealt = dealing(plan, resources.stream, clients_of)
    f = replace(
        connect(plan, schema, learners, exchange, OneByOne(world.at)),
        clock=clock,
        at=world.at,
        verdict=world.verdict,
        models=models,
        shelf=shelf,
        at_once=where.at_once,
        dealing=dealt,
    )
    if dealt.players:
        f.take_places = partial(take_places, f, Moving(world, dealt, resources, learners))
    return f


def open_exchange(
    world: World, clients_of: Sequence[Sequence[int]], schema: MessageSchema, clock: Clock, *, in_columns: bool
) -> Exchange:
    """Between the ranks of a run, of which each has these clients; in_columns: each has a part of the server, too."""
    if world.size == 1:
        return InProcessExchange()
    if not in_columns:
        return MpiExchange(world, clients_of, clock)
    told = frozenset(part.kind for part in schema.plain.up)
    return ColumnExchange(world, clients_of, clock, schema.setup.layout.scalars, told)


def make_client(method: MethodModule, schema: MessageSchema, experiment: Experiment, learner: Learner) -> Client:
    """A client's side of the method, with the aids that the config adds."""
    options = experiment.method.options
    side: Client = method.Client.create(learner, schema.setup, options)
    averages = experiment.serving.average > 0 and not learner.counts_only  # it costs nothing that a plan counts
    if averages and averaging.applies(type(side), schema.plain):
        side = averaging.AveragedClient(side, experiment.serving.average)
    if experiment.prototypes.exchange:
        side = PrototypeClient(side)
        if experiment.prototypes.compared and not side.task_aware:
            side = ComparingClient(side)
    if not schema.codecs.any:
        return side

    def start_of(tail: Tail) -> Tensor:
        return to_host(schema.setup.layout.pack(method.Client.travelling(tail, options)))

    return CompressedClient(side, schema.codecs, start_of)


def make_server(method: MethodModule, schema: MessageSchema, options: Any, exchange: Exchange) -> Server | None:
    """The method's server, or its part, where the exchange has it. Collective: all ranks must call."""
    if not isinstance(exchange, ColumnExchange):
        return method.Server(schema.setup, options) if exchange.is_server else None
    start = exchange.share(schema.setup.start.numpy()[None][: int(exchange.is_server)])
    setup = replace(schema.setup, start=torch.from_numpy(start[0]))
    return ColumnServer(method.Server, setup, options, exchange.own, exchange.join)


def connect(
    plan: Plan, schema: MessageSchema, learners: Mapping[int, Learner], exchange: Exchange, trainer: LocalTrainer
) -> Federation:
    """Both sides of the method: the server where the exchange has it, and a client for each learner, once it is asked for."""
    experiment, method = plan.experiment, plan.method
    options = experiment.method.options
    server = make_server(method, schema, options, exchange)
    if server is not None and experiment.prototypes.exchange and exchange.is_server:
        server = PrototypeServer(server)
    if server is not None and schema.codecs.any:
        server = CompressedServer(server, schema.codecs)
    return Federation(
        schedule=plan.schedule,
        exchange=exchange,
        trainer=trainer,
        initial_model=schema.initial_model,
        traffic=schema.traffic,
        scopes=plan.scopes,
        clients=Roster(learners, lambda client: make_client(method, schema, experiment, learners[client])),
        server=server,
        task_aware=method.Client.task_aware,
        told_at_once=plan.schedule.clients_per_round if method.Server.in_parts else plan.schedule.clients,
    )
