"""From a config to a federation that is ready for its first round: the model, the clients, the server.

In this order: `make_plan` (of numbers and labels alone), `load_data_and_model`, `assemble`.
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
from fedstil_mpi.data.inspection.remarks import count_unknown, unknown_cameras
from fedstil_mpi.data.streams.base import Stream, Task
from fedstil_mpi.evaluation.scopes import Scopes
from fedstil_mpi.evaluation.searchable import is_searchable
from fedstil_mpi.federation import schedule
from fedstil_mpi.federation.balance import dealing
from fedstil_mpi.federation.messages import MessageSchema, message_schema
from fedstil_mpi.federation.moving import Moving, take_places
from fedstil_mpi.federation.participation import check_away
from fedstil_mpi.federation.plan import Plan
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

MOST_TURNS = 10**6
"""Rounds times clients in each; to plan so many takes minutes."""


def make_plan(experiment: Experiment, method: MethodModule, stream: Stream) -> Plan:
    """The schedule and the number of classes, from labels alone.

    Raises InputError where the stream does not fit the config.
    """
    labels = [stream.labels(c, t) for c in range(stream.clients) for t in range(stream.tasks)]
    largest = max(int(of_task["train"].max()) for of_task in labels)
    num_classes = experiment.model.num_classes or largest + 1
    if largest >= num_classes:
        raise InputError(
            f"model.num_classes = {num_classes} for {largest + 1} people to train on; set it to {largest + 1} or more, "
            "or leave it out"
        )
    _check_cameras(experiment, *unknown_cameras(stream))
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


def _check_cameras(experiment: Experiment, unknown: int, images: int) -> None:
    """Refuse to mix two protocols: the Market-1501 rule for images whose camera is known, and none for the others."""
    evaluation = experiment.evaluation
    if 0 < unknown < images and evaluation.protocol == "market" and not evaluation.allow_unknown_cameras:
        raise InputError(
            f"the camera of {unknown:,} of {images:,} queries and gallery images is not known: evaluation.protocol=market would "
            "mix two protocols; name the cameras in the files' names, in cameras.csv or by data.camera_pattern, or set "
            "evaluation.allow_unknown_cameras=true"
        )


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
            _check_cameras(plan.experiment, *map(sum, zip(*counts, strict=True)))


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
