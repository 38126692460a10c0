"""What a run will do, from its config and the stream's labels: bytes, passes, memory, disk. Nothing is trained or sent."""

import gc
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fedstil_mpi.checkpoints.store import KEPT
from fedstil_mpi.client.augmentation import Augmentation
from fedstil_mpi.client.learner import KINDS
from fedstil_mpi.comm.exchange import CountingExchange
from fedstil_mpi.comm.ledger import DOWN, UP, Ledger
from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.data.streams.base import Stream
from fedstil_mpi.federation.balance import Dealing, dealing
from fedstil_mpi.federation.messages import MessageSchema, message_schema
from fedstil_mpi.federation.observer import Observers
from fedstil_mpi.federation.plan import Plan
from fedstil_mpi.federation.roster import Roster
from fedstil_mpi.federation.rounds import NoCheckpoints, run_rounds
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.federation.server_place import Places, places
from fedstil_mpi.federation.setup import connect
from fedstil_mpi.federation.start_model import blank_network
from fedstil_mpi.federation.state import Federation
from fedstil_mpi.methods.base import MethodModule
from fedstil_mpi.models.network import Network, network_state
from fedstil_mpi.models.torchvision_backbones import without_compiler
from fedstil_mpi.planning import footprint
from fedstil_mpi.planning.counting import NUMBER, CountingLearner, CountingTrainer, tasks_without_pixels
from fedstil_mpi.planning.footprint import Footprint
from fedstil_mpi.planning.hollow import HollowLayout, hollow
from fedstil_mpi.planning.round_kinds import Group, RoundKinds
from fedstil_mpi.results import RESULTS_FILE
from fedstil_mpi.results.writing.record import Record
from fedstil_mpi.results.writing.results_file import write_results
from fedstil_mpi.results.writing.run_folder import RunFolder
from fedstil_mpi.results.writing.summary import ACTIVITIES
from fedstil_mpi.util.clock import CPU


@dataclass(frozen=True)
class Forecast:
    schedule: Schedule
    placements: list[dict[str, Any]]
    """The ranks' rows of `placement.table`."""
    ledger: Ledger
    packed: set[str]
    """Kinds that pass a codec, of which the ledger has the dense bytes."""
    at_most: set[tuple[str, str]]
    """(direction, kind) of what a run may send less of."""
    rounds: list[Group]
    """The rounds by what is new in them."""
    learners: dict[int, CountingLearner]
    """Of all clients that take part, at the end of the run."""
    bounds: dict[str, str]
    """Kind of forward passes -> exactly | at most."""
    footprints: list[Footprint]
    """One for each rank."""
    files: dict[str, int]
    """Bytes by file name."""
    checkpoints: int
    """Bytes at least, while the run lasts: the start model, and of two rounds the clients' models."""
    places: Places
    players: Sequence[int]
    """The ranks to which clients are dealt anew in each round; none: each stays on its rank."""
    away: int
    """Bytes of files, of all ranks together, for the weights of clients that are not in memory; 0: all are."""

    @property
    def forward_counts(self) -> Counter[str]:
        """Images that pass the networks of all clients, by kind."""
        return sum((learner.forward_counts for learner in self.learners.values()), Counter())

    def differences(self, counts: Mapping[str, int]) -> list[str]:
        """How a run's forward counts differ from this forecast; empty where they do not."""
        fits = {"exactly": int.__eq__, "at most": int.__le__}
        predicted = self.forward_counts
        return [
            f"{kind} {counts.get(kind, 0)} instead of {bound} {predicted[kind]}"
            for kind, bound in self.bounds.items()
            if not fits[bound](counts.get(kind, 0), predicted[kind])
        ]

    def as_json(self) -> dict[str, Any]:
        kinds = self.ledger.by_kind()
        return {
            "placement": self.placements,
            "server": "all_ranks" if self.places.shared else "rank_0",
            "dealt": bool(self.players),
            "away": self.away,
            "at_once": self.places.at_once,
            "rounds": [group._asdict() for group in self.rounds],
            "bytes": {
                **{way: self.ledger.total(way) for way in (DOWN, UP)},
                "kinds": [
                    {"direction": way, "kind": kind, "bytes": encoded}
                    | {"before_codec": kind in self.packed, "at_most": (way, kind) in self.at_most}
                    for (way, kind), (_, encoded) in sorted(kinds.items())
                ],
            },
            "forward_counts": {
                kind: {"images": self.forward_counts[kind], "bound": bound} for kind, bound in self.bounds.items()
            },
            "clients": [
                {way: self.ledger.total(way, client=client) for way in (DOWN, UP)}
                | {kind: learner.forward_counts[kind] if learner else 0 for kind in self.bounds}
                for client in range(self.schedule.clients)
                for learner in (self.learners.get(client),)
            ],
            "memory": [{"host": f.host(), "gpu": f.device(), "parts": f.parts} for f in self.footprints],
            "files": self.files,
            "checkpoints": self.checkpoints,
        }


def make(plan: Plan, stream: Stream, placements: list[dict[str, Any]], dealt: Dealing | None = None) -> Forecast:
    """The forecast of a run whose ranks are placed so: its rounds run without images and weights.

    dealt: how clients are dealt to these ranks, where it is known already. Raises InputError where the model cannot be built.
    """
    with without_compiler(plan.experiment.model.backbone), _uncollected():
        return _make(plan, stream, placements, dealt)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's search for circles that nobody needs, a quarter of the time with a thousand clients, nearly all of which live on."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _make(plan: Plan, stream: Stream, placements: list[dict[str, Any]], dealt: Dealing | None) -> Forecast:
    experiment, method, schedule = plan.experiment, plan.method, plan.schedule
    network = blank_network(experiment, plan.num_classes)
    schema = message_schema(experiment, method, schedule.clients, network)
    f = counting_federation(plan, stream, hollow(network), schema)
    kinds, files = _play(f, len(placements))
    ledger, learners = f.exchange.ledger, counting_learners(f)
    where = places(experiment, method, schema, len(placements))
    clients_of = [row["clients"] for row in placements]
    dealt = dealt or dealing(plan, stream, clients_of)
    in_the_end = zip(placements, dealt.in_the_end(clients_of), strict=True)
    last = [{**row, "clients": clients} for row, clients in in_the_end]
    parts = [*((DOWN, part) for part in schema.traffic.down), *((UP, part) for part in schema.traffic.up)]
    return Forecast(
        schedule=schedule,
        placements=placements,
        ledger=ledger,
        packed={part.kind for _, part in parts if part.codec != "dense"},
        at_most={(way, part.kind) for way, part in parts if part.varies},
        rounds=kinds.groups(),
        learners=learners,
        bounds=bounds(experiment),
        footprints=footprint.estimate(
            experiment, method, schema, network, stream, schedule, learners, ledger, last, where, files[RESULTS_FILE]
        ),
        files=files,
        checkpoints=_checkpoints(network, len(learners)) if experiment.checkpoint.every else 0,
        places=where,
        players=dealt.players,
        away=_away(experiment, method, schema, network, len(learners), where) if where.in_files else 0,
    )


def _play(f: Federation, ranks: int) -> tuple[RoundKinds, dict[str, int]]:
    """All rounds of such a federation: what is new in them, and the bytes of the files that they leave, by name."""
    kinds = RoundKinds(f)
    with TemporaryDirectory(prefix="fedstil_mpi-") as name:
        folder = RunFolder(Path(name))
        record = Record(folder, f.schedule, f.exchange.ledger, f.events, f.scopes.names)
        f.observer = Observers(record, kinds)
        run_rounds(f, NoCheckpoints())
        timings = [dict.fromkeys((*ACTIVITIES, CPU), NUMBER) for _ in range(ranks)]
        write_results(folder.path / RESULTS_FILE, record, timings, ["0" * 64] * f.schedule.clients)
        return kinds, {path.name: path.stat().st_size for path in sorted(folder.path.iterdir())}


def counting_federation(plan: Plan, stream: Stream, network: Network, schema: MessageSchema) -> Federation:
    """All clients in this process. network: hollow; schema: of the real one."""
    data = plan.experiment.data

    def learner_of(client: int) -> CountingLearner:
        tasks = tasks_without_pixels(stream, client, data.height, data.width)
        return CountingLearner(client, plan.learners_experiment, tasks, network)

    learners = Roster(range(plan.schedule.clients), learner_of)
    counted = message_schema(plan.experiment, plan.method, plan.schedule.clients, network)
    setup = replace(counted.setup, layout=HollowLayout.like(counted.setup.layout))
    schema = replace(schema, setup=setup, codecs=counted.codecs)
    schema.initial_model.network = network  # of which clients take their copy; what is sent of it stays as it was
    return connect(plan, schema, learners, CountingExchange(), CountingTrainer())


def counting_learners(f: Federation) -> dict[int, CountingLearner]:
    """Of the clients that have taken part in such a federation."""
    learners = {client: side.learner for client, side in f.clients.made().items()}
    return {client: learner for client, learner in learners.items() if isinstance(learner, CountingLearner)}


def bounds(experiment: Experiment) -> dict[str, str]:
    """How to read a number of forward passes, by kind: exactly | at most so many. Early stopping ends rounds sooner."""
    train = experiment.train
    fewer = {"train"} | ({"stem"} if Augmentation.of(train).active and train.refresh == "epoch" else set())
    return {kind: "at most" if train.early_stop and kind in fewer else "exactly" for kind in KINDS}


def _checkpoints(network: Network, clients: int) -> int:
    start, tail = network_state(network).values(), network.tail.state_dict().values()
    return sum(tensor.nbytes for tensor in start) + KEPT * clients * sum(tensor.nbytes for tensor in tail)


def _away(
    experiment: Experiment, method: MethodModule, schema: MessageSchema, network: Network, clients: int, where: Places
) -> int:
    """The clients' models, and what the server keeps of each; in waves also what each was sent, and what came of it; and what
    clients keep beside their models: the mean that is searched with, where they started from, and what codecs leave out."""
    tail = sum(tensor.nbytes for tensor in network.tail.state_dict().values())
    kept = (experiment.serving.average > 0) + (experiment.rounds.exchange_every > 1)
    coded = (schema.codecs.up is not None) + 2 * (schema.codecs.down is not None)  # at both ends
    of_server = max(1, len(footprint.matrices(footprint.kept_by_server(method, schema, experiment))))
    rows = of_server + (2 if where.at_once is not None else 0) + kept + coded
    return clients * (tail + rows * 4 * schema.setup.layout.scalars)
