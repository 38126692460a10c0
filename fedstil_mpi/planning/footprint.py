"""How much memory a rank needs: what follows from sizes and counts alone.

The estimate counts the tensors and images that are there together at the busiest moment. It leaves out the interpreter
and its libraries, temporaries of the arithmetic, and what a method keeps besides the weights of one model (importances, masks, Ditto's second model).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedstil_mpi.client.augmentation import Augmentation
from fedstil_mpi.client.representations import BATCH
from fedstil_mpi.comm.ledger import UP, Ledger
from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.data.streams.base import SPLITS, Stream
from fedstil_mpi.federation.messages import MessageSchema
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.federation.server_place import Places
from fedstil_mpi.federation.waves import portions
from fedstil_mpi.methods.base import MethodModule
from fedstil_mpi.methods.client_matrix import ClientMatrix
from fedstil_mpi.models.activations import Passing, measure_passing
from fedstil_mpi.models.inference import has_form
from fedstil_mpi.models.network import Network, network_state, trainable_parameters
from fedstil_mpi.models.torchvision_backbones import FAMILIES
from fedstil_mpi.planning.counting import CountingLearner
from fedstil_mpi.planning.message_footprint import largest_messages
from fedstil_mpi.planning.search_footprint import of_search
from fedstil_mpi.util.shelf import RESIDENT

COLUMNS = (
    "set-up",
    "model",
    "warm-up",
    "images",
    "tails",
    "activations",
    "cache",
    "memory",
    "search",
    "exchange",
    "checkpoint",
    "files",
    "server",
    "results",
)
"""What takes memory: the start model while it is built, before its kernels are cut to what images reach, libraries' pages that come
in as they are used, and what the server's rank loads and keeps to make this forecast; the start model; the server's training of it;
decoded images of the rank's clients, and what Python keeps of each; their models, gradients and the moments of one Adam; what the layers hold of the largest batch; what the stem made of images, and the
training set put together from it; exemplars and others' prototypes; galleries that are joined to be searched; messages,
their buffers and the weights that deltas are taken against; copies of models until a checkpoint is written; what is read from
files of one client at a time, and the server's newest rows, which are not in them yet; what the server keeps of all clients; what is
recorded for results.h5, and the file while it is made."""
ON_GPU = {"model", "warm-up", "tails", "activations", "cache", "memory", "search"}
"""What is on the GPU where a rank has one."""

FORECAST, COMPILER = 40_000_000, 40_000_000
"""Bytes of the modules with which torch follows operations on the device meta, where nothing else has loaded them; and of its
compiler, which they load where it is not left out."""
COUNTED = 100_000
"""Bytes that Python keeps of a client to count what it does, with what the ledger has of some rounds."""
PAGES = 30_000_000
"""Bytes of libraries that were not read yet when a run began: of MPI, and of arithmetic."""
OBJECTS = 90_000
"""Bytes that Python keeps of a client beside its tensors and images: its side, its learner, its model's layers."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of one rank by what takes them, the keys of COLUMNS."""

    parts: dict[str, int]
    gpu: bool

    def host(self) -> int:
        """At the busiest moment, outside the GPU."""
        return _busiest({name: size for name, size in self.parts.items() if not (self.gpu and name in ON_GPU)})

    def device(self) -> int:
        """At the busiest moment of the GPU; 0 without one."""
        return _busiest({name: size for name, size in self.parts.items() if self.gpu and name in ON_GPU})


def _busiest(parts: Mapping[str, int]) -> int:
    """The warm-up's memory is given back before the rounds; what is over earlier in a round an allocator keeps until its end."""
    rounds = sum(size for name, size in parts.items() if name != "warm-up")
    return max(rounds, sum(parts.get(name, 0) for name in ("set-up", "model", "warm-up")))


@dataclass(frozen=True)
class Sizes:
    """Bytes of the things that a run is made of."""

    model: int
    stem: int
    """Its inference form."""
    tail: int
    learns: int
    """The tail's parameters that are trained."""
    travels: int
    """The weights that are exchanged."""
    item: int
    """A representation."""
    feature: int
    """What a search compares of an image."""
    image: int
    in_stem: Passing
    in_tail: Passing


def measure(experiment: Experiment, schema: MessageSchema, network: Network) -> Sizes:
    """network: on the device meta."""
    data, tail = experiment.data, network.tail
    return Sizes(
        model=_bytes(network_state(network).values()),
        stem=_bytes(network.stem.parameters()) if has_form(network.stem) else 0,
        tail=_bytes(tail.state_dict().values()),
        learns=_bytes(trainable_parameters(tail).values()),
        travels=4 * schema.setup.layout.scalars,
        item=4 * schema.setup.representation,
        feature=4 * tail.classifier.in_features,
        image=data.height * data.width * 3,
        in_stem=measure_passing(network.stem, (3, data.height, data.width)),
        in_tail=measure_passing(tail, schema.shape),
    )


def estimate(
    experiment: Experiment,
    method: MethodModule,
    schema: MessageSchema,
    network: Network,
    stream: Stream,
    schedule: Schedule,
    learners: Mapping[int, CountingLearner],
    ledger: Ledger,
    placements: Sequence[Mapping[str, Any]],
    where: Places,
    results: int,
) -> list[Footprint]:
    """Every rank's.

    network: on the device meta; learners: of the clients that take part; ledger: as predicted; placements: the ranks' rows of
    `placement.table`, with the clients that they have in the end; where: what is large is kept; results: bytes of results.h5.
    """
    sizes = measure(experiment, schema, network)
    of_server = where.shares(schema.setup.layout.scalars, len(placements))
    clients_of = [row["clients"] for row in placements]
    messages = largest_messages(method, schema, schedule, ledger, clients_of, of_server, where.at_once)
    everywhere = "all" in experiment.evaluation.gallery
    galleries = sum(learner.images_searched_in for learner in learners.values()) if everywhere else 0
    footprints = [
        Footprint(
            _of_rank(experiment, schema, stream, schedule, sizes, learners, galleries, where, row),
            row["device"] == "cuda",
        )
        for row in placements
    ]
    drawn = len(learners)
    kept = _server(method, schema, experiment, 0 if where.in_files else drawn)
    for place, message, share in zip(footprints, messages, of_server, strict=True):
        place.parts["exchange"] += message
        if share:
            place.parts["server"] = int(share * kept)
            newest = min(RESIDENT, int(share * drawn * sizes.travels)) if where.in_files else 0
            place.parts["files"] = place.parts.get("files", 0) + newest
    parts = footprints[0].parts
    held = drawn * sizes.travels if schema.codecs.down and not where.in_files else 0
    parts["server"] = parts.get("server", 0) + _reports(ledger) + held
    parts["set-up"] += FORECAST + (0 if experiment.model.backbone in FAMILIES else COMPILER) + COUNTED * drawn
    parts["results"] = 3 * results  # as it was recorded, in HDF5's memory, and with its checksum
    if experiment.checkpoint.every:  # the start model, whose copy is gone when clients' states are copied
        parts["checkpoint"] = max(sizes.model, parts.get("checkpoint", 0))
    parts["warm-up"] = _warm_up(experiment, network, sizes)
    return footprints


def _of_rank(
    experiment: Experiment,
    schema: MessageSchema,
    stream: Stream,
    schedule: Schedule,
    sizes: Sizes,
    learners: Mapping[int, CountingLearner],
    galleries: int,
    where: Places,
    placement: Mapping[str, Any],
) -> dict[str, int]:
    """What a rank needs for itself and its clients, without messages and the server.

    galleries: images in all clients' galleries where they are joined, else 0; placement: the rank's row.
    """
    clients = placement["clients"]
    mine = [learners[client] for client in clients if client in learners]
    idle = [client for client in clients if client not in learners]
    parts = {"set-up": sizes.model + PAGES, "model": sizes.model, "exchange": sizes.travels}
    if galleries:  # what this rank gives, and all of it
        parts["exchange"] += (sum(learner.images_searched_in for learner in mine) + galleries) * sizes.feature
    if not stream.on_demand:
        parts["images"] = sizes.image * sum(_images(stream, client) for client in idle)
    if not mine:
        return parts
    models = most_together(schedule, clients, at_once=where.at_once) if where.in_files else len(mine)
    of_clients = _of_clients(experiment, sizes, mine)
    of_clients["images"] += parts.pop("images", 0)
    parts |= of_clients
    parts["model"] += sizes.stem
    parts["files"] = sizes.tail + sizes.travels if where.in_files else 0
    parts["tails"] = (len(mine) if placement["device"] == "cuda" else models) * sizes.tail + 3 * sizes.learns
    parts["search"] = of_search(experiment, sizes.feature, mine, galleries)
    if schema.traffic.down:  # every client keeps what its delta is taken against
        parts["exchange"] += (models + 2) * sizes.travels
    # what is not sent yet, what the server brought it to, the mean that is searched with
    kept = (schema.codecs.up is not None) + (schema.codecs.down is not None) + (experiment.serving.average > 0)
    parts["exchange"] += kept * models * sizes.travels
    if experiment.checkpoint.every:
        copied = most_together(schedule, clients, experiment.checkpoint.every)
        copies = copied * sizes.tail + parts["memory"]
        parts["checkpoint"] = copies // len(mine) if where.at_once else copies  # in waves one after the other
    return parts


def _of_clients(experiment: Experiment, sizes: Sizes, learners: Sequence[CountingLearner]) -> dict[str, int]:
    """What a rank's clients have; one of them trains at a time."""
    tasks = [task for learner in learners for task in learner.tasks]
    splits = [{split: len(getattr(task, split)) for split in SPLITS} for task in tasks]
    largest = {split: max(images[split] for images in splits) for split in SPLITS}
    remembered = [learner.stored for learner in learners]
    represented = sum(learner.represented for learner in learners)
    sent = experiment.prototypes.compared * sum(len(task.train.people) for task in tasks)
    views = len(learners) * largest["train"] * Augmentation.of(experiment.train).active
    searched = max(largest.values()) * sizes.in_tail.peak
    return {
        "images": sizes.image * sum(sum(images.values()) for images in splits) + OBJECTS * len(learners),
        "activations": max(BATCH * sizes.in_stem.peak, experiment.train.batch * sizes.in_tail.kept, searched),
        "cache": sizes.item * (represented + views + largest["train"] + max(remembered)),
        "memory": sizes.item * (sum(remembered) + sent),
    }


def most_together(schedule: Schedule, clients: Sequence[int], every: int = 1, at_once: int | None = None) -> int:
    """How many of these clients take part in so many rounds, from one checkpoint to the next, at most; at_once: or in a wave."""
    together: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    for round, online in schedule.rounds():
        for number, wave in enumerate(portions(online, at_once)):
            together[(round - 1) // every, number].update(wave)
    return max(len(of_rounds.intersection(clients)) for of_rounds in together.values())


def _images(stream: Stream, client: int) -> int:
    """How many a client has in all."""
    labels = [stream.labels(client, task) for task in range(stream.tasks)]
    return sum(len(of_task[split]) for of_task in labels for split in SPLITS)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _server(method: MethodModule, schema: MessageSchema, experiment: Experiment, drawn: int) -> int:
    """The tensors that the method's server begins with; on the device meta, which costs nothing.

    drawn: clients that take part at all, of which alone a `ClientMatrix` has rows.
    """
    found = kept_by_server(method, schema, experiment)
    rows = sum(min(drawn, matrix.clients) * matrix.start.nbytes + matrix.sum_P.nbytes for matrix in matrices(found))
    return rows + _bytes(value for value in found if isinstance(value, Tensor))


def kept_by_server(method: MethodModule, schema: MessageSchema, experiment: Experiment) -> list[Any]:
    """What the method's server begins with; on the device meta, which costs nothing."""
    with torch.device("meta"):
        return list(vars(method.Server(schema.setup, experiment.method.options)).values())


def matrices(kept: Iterable[Any]) -> list[ClientMatrix]:
    """Those among what a server keeps that have a row of each client, each once."""
    return list({id(value): value for value in kept if isinstance(value, ClientMatrix)}.values())


def _reports(ledger: Ledger) -> int:
    """What the server keeps of everything that was ever sent."""
    return sum(entry.raw for entry in ledger.entries if entry.direction == UP and entry.kind in ("token", "prototypes"))


def _warm_up(experiment: Experiment, network: Network, sizes: Sizes) -> int:
    """Gradients, Adam's moments, one batch, and the server's own images."""
    warmup, own = experiment.warmup, experiment.data.synthetic
    if not warmup.steps:
        return 0
    learns = _bytes([*network.stem.parameters(), *network.tail.trunk.parameters()])
    kept = sizes.in_stem.kept + sizes.in_tail.kept
    return 3 * learns + warmup.batch * kept + own.warmup_people * own.warmup_images * sizes.image
