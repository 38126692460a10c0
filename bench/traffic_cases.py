"""The messages of our methods for a backbone, a preset and a number of clients, as a run would have them."""

from collections import Counter
from dataclasses import dataclass, replace

import torch

from fedstil_mpi import methods
from fedstil_mpi.comm.flat import Part
from fedstil_mpi.comm.ledger import DOWN, UP, Ledger
from fedstil_mpi.config import loading
from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.data.sources import open_stream
from fedstil_mpi.data.streams.base import Stream
from fedstil_mpi.evaluation.scopes import Scopes
from fedstil_mpi.federation.messages import MessageSchema, message_schema
from fedstil_mpi.federation.plan import Plan
from fedstil_mpi.federation.rounds import NoCheckpoints, run_rounds
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.models.network import Network, build, network_state
from fedstil_mpi.planning.forecast import counting_federation
from fedstil_mpi.planning.hollow import hollow

CLASSES = 8000
IMAGE = (128, 64)
PRESETS = ("best", "paper", "reference_code")
PEOPLE = 12
"""People of a task, half of which turn up at a neighbouring camera later: the synthetic stream's defaults."""
DENSITY = 0.1
"""Share of an item's scalars that are not zero where its part travels sparsely."""


@dataclass(frozen=True)
class Case:
    backbone: str
    method: str
    preset: str = "best"
    clients: int = 5
    codec: str = "none"
    """Of the weights, both ways; with one, first contact and prototypes travel in 16 bits, importances too."""


def schedule(clients: int, tasks: int, per_task: int) -> Schedule:
    """Every client takes part in every round."""
    return Schedule(1, clients, tasks, per_task, tasks * per_task, clients, per_task)


def network(backbone: str, device: str = "meta") -> Network:
    """With the reference code's number of classes; "meta": shapes only, no memory, no time."""
    with torch.device(device):
        return build(backbone, num_classes=CLASSES, image_size=IMAGE)


def experiment(case: Case) -> Experiment:
    module = methods.load(case.method)
    both = dict.fromkeys(("up", "down"), case.codec)
    halves = dict.fromkeys(("first_contact", "prototypes"), "float16") | {"importance": "bfloat16"}
    synthetic = {"clients": case.clients, "people_per_task": PEOPLE}
    source = {
        "method": {"name": case.method, "preset": case.preset},
        "model": {"backbone": case.backbone, "num_classes": CLASSES},
        "compression": both if case.codec == "none" else both | halves,
        "data": {"height": IMAGE[0], "width": IMAGE[1], "synthetic": synthetic},
    }
    return loading.resolve(source, module.Options, module.PRESETS)


def schema_of(case: Case, start: Network, *, shared_checkpoint: bool = False) -> MessageSchema:
    """shared_checkpoint: every client has the backbone's weights before first contact."""
    names = network_state(start) if shared_checkpoint else ()
    provided = frozenset(name for name in names if not name.startswith("tail.classifier."))
    return message_schema(experiment(case), methods.load(case.method), case.clients, replace(start, provided=provided))


def presets(method: str) -> list[str]:
    """Those of PRESETS that a method has: the reference code does not have every method."""
    return [preset for preset in PRESETS if preset in methods.load(method).PRESETS]


def stream(plan: Plan) -> Stream:
    """The data stream, of which only the labels are used."""
    return open_stream(plan.experiment.data, plan.experiment.seed)


def nonzeros(part: Part) -> int:
    """Nonzero scalars of one item of a part that travels sparsely."""
    return int(DENSITY * part.scalars)


def plan_of(case: Case, rounds: Schedule) -> Plan:
    config = experiment(case)
    config.data.tasks, config.rounds.per_task = rounds.tasks, rounds.per_task
    return Plan(config, methods.load(case.method), rounds, CLASSES, Scopes(config.evaluation.gallery))


def predicted(case: Case, start: Network, rounds: Schedule) -> Ledger:
    """What crosses the edge links, with sparse items encoded at the assumed density."""
    schema, plan = schema_of(case, start), plan_of(case, rounds)
    f = counting_federation(plan, stream(plan), hollow(start), schema)
    run_rounds(f, NoCheckpoints())
    directions = {DOWN: schema.traffic.down, UP: schema.traffic.up}
    sparse = {(way, part.kind): part for way, parts in directions.items() for part in parts if part.codec == "sparse"}
    ledger = Ledger()
    for entry in f.exchange.ledger.entries:
        encoded = entry.encoded
        if part := sparse.get((entry.direction, entry.kind)):
            encoded = entry.raw // part.itemsize * (8 + 8 * nonzeros(part))
        ledger.book(*entry[:5], encoded)
    return ledger


def moved_by_mpi(schema: MessageSchema, ledger: Ledger, ranks: int) -> int:
    """Bytes between different ranks, of which rank 0 has no client: what is shared goes once to every rank."""
    shared = _shared(schema)
    personal = sum(e.encoded for e in ledger.entries if e.direction == UP or e.kind not in shared)
    shared_sizes = {(e.round, e.kind, e.encoded) for e in ledger.entries if e.direction == DOWN and e.kind in shared}
    return personal + (ranks - 1) * sum(size for _, _, size in shared_sizes)


def server_memory(schema: MessageSchema, ledger: Ledger) -> int:
    """Bytes of the server's buffers: of every part, what the round with the most of it needs."""
    shared = _shared(schema)
    sizes: Counter[tuple[str, str, int]] = Counter()
    for e in ledger.entries:
        key = e.direction, e.kind, e.round
        sizes[key] = e.raw if e.direction == DOWN and e.kind in shared else sizes[key] + e.raw
    buffers: dict[tuple[str, str], int] = {}
    for (direction, kind, _), size in sizes.items():
        buffers[direction, kind] = max(size, buffers.get((direction, kind), 0))
    return sum(buffers.values())


def _shared(schema: MessageSchema) -> set[str]:
    return {part.kind for part in (*schema.initial_model.parts(complete=True), *schema.traffic.down) if part.shared}
