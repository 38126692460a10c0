"""The experiment as dataclasses: every key of a config file, its default, what it means and which values it takes."""

import json
import math
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from fedstil_mpi.config.synthetic import COURSES, SyntheticOptions
from fedstil_mpi.data.synthetic.appearance import PALETTE
from fedstil_mpi.util.errors import InputError, did_you_mean


@dataclass(kw_only=True)
class Data:
    kind: str = "synthetic"
    """synthetic (people who walk between cameras, drawn from the seed) | folder (task-<client>-<task>/{train,query,
    gallery}/<person>/<image>) | pku (PKU-Reid's file names, split into four clients) | pack (one file with all images,
    which python -m fedstil_mpi.data writes)."""
    path: str | None = None
    """Where the images are; for folder, pku and pack."""
    height: int = 64
    """Pixels; images are resized to height x width, synthetic ones drawn so (32 x 16 or larger); a pack's have theirs."""
    width: int = 32
    tasks: int = 6
    """Tasks per client; a folder and a pack bring their own number."""
    clients: list[int] | None = None
    """Use only these clients of the stream, as if there were no others; null: all."""
    pooled: bool = False
    """Every client trains on all clients' images of a task: what exchange is worth if images could travel."""
    validation: bool = False
    """Hold one training image a person and task out and search for it among those of the other clients, in the place
    of the test's queries and galleries: choose settings on this, and report the test."""
    synthetic: SyntheticOptions = field(default_factory=SyntheticOptions)
    """The synthetic stream's own knobs."""


@dataclass(kw_only=True)
class Model:
    backbone: str = "mobilenet_v2"
    """resnet18 | resnet34 | resnet50 | resnet101 | resnet152 | mobilenet_v2 | swin_t | swin_s | swin_b."""
    split: str | None = None
    """First layer of the tail; null: the backbone's last stage. What lies before it is frozen."""
    last_stride: int = 1
    """Stride of the last stage that reduces resolution, 1 or 2; Swin has no such stride and ignores it."""
    neck: str = "bnneck"
    """bnneck (batch norm before a classifier without bias) | plain."""
    weights: str = "none"
    """imagenet (torchvision's) | none (drawn from the seed) | a local .pt, .pth or .safetensors file."""
    num_classes: int | None = None
    """Width of the classifier; every person id must be below it; null: the largest id of the stream plus 1."""


@dataclass(kw_only=True)
class Warmup:
    """The server trains the whole backbone on its own labelled images before round 1 and sends it to every client."""

    steps: int = 0
    """Optimiser steps; 0: no warm-up."""
    batch: int = 32
    lr: float = 1e-3
    """Peak of a one-cycle cosine schedule."""


@dataclass(kw_only=True)
class Rounds:
    per_task: int = 2
    """Rounds a client takes part in before its next task begins."""
    total: int | None = None
    """Rounds altogether; null: as many as full participation needs for all tasks."""
    clients_per_round: int | None = None
    """Clients drawn for a round, without replacement; null: all."""
    evaluate_every: int | None = None
    """Rounds between two evaluations; null: at the last round of each task. The last round is always evaluated."""


@dataclass(kw_only=True)
class Participation:
    """Clients that join late, are away, or fall behind; drawn from the seed, the same for every method.

    In a round in which nobody would be there one client is called by lot.
    """

    late: float = 0.0
    """Share of the clients that are not there from the start; such a client gets the start model when it joins."""
    late_until: int | None = None
    """Each of them joins in a round drawn from 2 to this one, or never if that is after the last; null: half of all."""
    dropout: float = 0.0
    """Chance of each client, in each round, to be away. Its stream waits for it."""
    away: list[Any] = field(default_factory=list)
    """When clients are away besides: each entry is [client, first round, last round], for example [[0, 3, 5], [2, 1, 9]]."""
    stragglers: float = 0.0
    """Chance of each client, in each round, to get only a part of its local training done in time."""
    straggler_effort: float = 0.5
    """That part, of its steps or epochs; at least one of them is done."""


@dataclass(kw_only=True)
class Train:
    steps: int = 12
    """Optimiser steps a round; 0: count epochs instead."""
    epochs: int = 5
    """Passes over the training set a round, used where steps is 0."""
    batch: int = 32
    lr: float = 1e-3
    """Adam's learning rate; moments start anew each round."""
    weight_decay: float = 1e-5
    """Adam's coupled L2 term."""
    label_smoothing: float = 0.1
    softmax: str = "known"
    """known (over the people this client has met) | all (over every row of the classifier)."""
    early_stop: bool = False
    """Stop a round after three epochs without a better loss AND accuracy; needs epochs."""
    rate: str = "constant"
    """constant | reference (x0.1 every 5 epochs, reset each round, its counter never rewound)."""
    contrast: float = 0.0
    """Weight of a supervised contrastive loss beside the cross entropy, on the features that retrieval compares; 0: none.
    Images of a person are drawn together; with prototypes.exchange also to what other cameras saw of it."""
    contrast_temperature: float = 0.1
    """The smaller, the more the contrastive loss minds the most alike of other people."""
    triplet: float = 0.0
    """Weight of a triplet loss beside the cross entropy: hardest positive and negative of the batch by the cosine of
    their features, margin 0.3; 0: none."""
    augment: str = "flip"
    """none | flip (with probability 0.5) | default, rose, sharp, drastic (flip, and a random box erased with probability
    0.5, 0.6, 0.75, 0.9)."""
    crop_pad: int = 0
    """Pixels of mean colour added around each image before it is cut back at a random place; 0: none."""
    colour_jitter: float = 0.0
    """j: each image's brightness, contrast and saturation times random numbers between 1 - j and 1 + j; 0: none."""
    refresh: str = "round"
    """How often training images pass the stem again with fresh augmentation: task | round | epoch."""
    precision: str = "float32"
    """float32 | bfloat16 (autocast on a GPU; the weights stay float32)."""


@dataclass(kw_only=True)
class Memory:
    size: int = 90
    """Representations of past people a client keeps for rehearsal; 0: no rehearsal."""
    share: float | None = 0.5
    """Share of each batch that is old; null: old and new are shuffled into one set, as the reference does."""
    herding: str = "distinct"
    """distinct (a sample is chosen once) | repeat (the reference: picks may repeat and fill the quota)."""
    quota: str = "seen"
    """How a person's share of size is found: seen (by all people this client has met) | width (the published iCaRL: by
    the largest person id met plus 1)."""
    labels: str = "person"
    """person | collide (the reference: an exemplar is trained with the newest person of its class index)."""


@dataclass(kw_only=True)
class Prototypes:
    exchange: bool = False
    """Send each task's mean representation of every person once; the server relays it to the clients that know the
    person. It is a mean over a handful of images and leaves the client: switch it off where that is not acceptable."""


@dataclass(kw_only=True)
class Evaluation:
    protocol: str = "market"
    """market (Market-1501: the same person at the same camera is junk, queries without a match do not count) |
    reference (the published code's: first match only)."""
    tasks: str = "seen"
    """seen | all (future tasks too)."""
    gallery: str = "task"
    """Where a query is searched: task (its task's gallery) | client (the galleries of all evaluated tasks of its client)
    | all (those of all clients: a search across all cameras). For all, every client describes its galleries with its own
    model, as an edge camera would; features of different models fit together only as far as the models agree."""


@dataclass(kw_only=True)
class Checkpoint:
    every: int = 1
    """Rounds between two checkpoints, of which the last two are kept until the run is complete; 0: none. With more than 1
    a run that is stopped inside a round goes on from the last checkpoint before it."""


@dataclass(kw_only=True)
class Exchange:
    timeout: float | None = 3600.0
    """Seconds that a rank waits in a round for the others, of whom one may still be training, before the job ends with an
    error: a cut link or a stopped process must not hang it for ever. null: no limit. Before the first round, while images
    are read and the model is warmed up, it is an hour if this is less."""


@dataclass(kw_only=True)
class Placement:
    device: str = "auto"
    """auto | cpu | cuda."""
    gpus_per_node: int | None = None
    """How many GPUs of a node to use; null: all that are visible. Asking for more than present is an error."""
    threads: int | None = None
    """CPU threads of each rank; null: OMP_NUM_THREADS if set, else the cores divided by the ranks that share them."""


@dataclass(kw_only=True)
class Method:
    """Which method; its own options stand beside these two keys (see the Options of fedstil_mpi/methods/<name>.py)."""

    name: str = "fedstil"
    preset: str = "best"
    options: Any = None
    """The method's Options, filled in from its preset and the keys beside name and preset."""


@dataclass(kw_only=True)
class Experiment:
    """Everything that decides a result. The number of ranks is not part of it."""

    name: str = "experiment"
    """Name of the run folder."""
    seed: int = 1
    output: str = "runs"
    """Folder that holds the run folders."""
    resume: str = "never"
    """never (a run folder that holds anything is refused) | auto (an interrupted run goes on from its last checkpoint, a
    complete one is left as it is)."""
    fault_tolerance: bool = False
    """When ranks with clients die, the others go back to the last checkpoint and go on; needs mpirun --with-ft ulfm of
    Open MPI 5. The loss of rank 0, the server, ends the job."""
    lost_clients: str = "adopt"
    """What becomes of a dead rank's clients: adopt (other ranks play them on; the results are those of a run in which
    nobody died) | offline (they take no part from then on, as cameras would that have broken)."""
    save_models: bool = False
    """Keep the stem and every client's last tail in the run folder, as safetensors."""
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    warmup: Warmup = field(default_factory=Warmup)
    rounds: Rounds = field(default_factory=Rounds)
    participation: Participation = field(default_factory=Participation)
    train: Train = field(default_factory=Train)
    memory: Memory = field(default_factory=Memory)
    prototypes: Prototypes = field(default_factory=Prototypes)
    evaluation: Evaluation = field(default_factory=Evaluation)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    exchange: Exchange = field(default_factory=Exchange)
    placement: Placement = field(default_factory=Placement)
    method: Method = field(default_factory=Method)

    def as_json(self) -> str:
        """As a config file that gives this experiment again: the method's options stand beside its name and preset."""
        tree = asdict(self)
        options = tree["method"].pop("options") or {}
        tree["method"] |= options
        return json.dumps(tree, indent=2)


CHOICES = {
    "data.kind": ("synthetic", "folder", "pku", "pack"),
    "data.synthetic.drift_course": COURSES,
    "model.neck": ("bnneck", "plain"),
    "train.softmax": ("known", "all"),
    "train.rate": ("constant", "reference"),
    "train.augment": ("none", "flip", "default", "rose", "sharp", "drastic"),
    "train.refresh": ("task", "round", "epoch"),
    "train.precision": ("float32", "bfloat16"),
    "memory.herding": ("distinct", "repeat"),
    "memory.quota": ("seen", "width"),
    "memory.labels": ("person", "collide"),
    "evaluation.protocol": ("market", "reference"),
    "evaluation.tasks": ("seen", "all"),
    "evaluation.gallery": ("task", "client", "all"),
    "placement.device": ("auto", "cpu", "cuda"),
    "resume": ("never", "auto"),
    "lost_clients": ("adopt", "offline"),
}

# key -> (smallest, largest) allowed value; None: any finite value above, and null values are let through.
RANGES: dict[str, tuple[float, float | None]] = {
    "data.height": (8, None), "data.width": (8, None), "data.tasks": (1, None),
    "data.synthetic.clients": (2, None), "data.synthetic.people_per_task": (2, None),
    "data.synthetic.walkers": (0, 1), "data.synthetic.train_images": (1, None),
    "data.synthetic.query_images": (1, None), "data.synthetic.gallery_images": (1, None),
    "data.synthetic.colours": (2, len(PALETTE)), "data.synthetic.occlusion": (0, 1),
    "data.synthetic.camera_strength": (0, None), "data.synthetic.drift": (0, None),
    "data.synthetic.weather": (0, None), "data.synthetic.crowding": (0, 1), "data.synthetic.wardrobe": (0, 1),
    "data.synthetic.wear": (0, None), "data.synthetic.colour_jitter": (0, None),
    "data.synthetic.warmup_people": (0, None), "data.synthetic.warmup_cameras": (1, None),
    "data.synthetic.warmup_images": (1, None),
    "model.last_stride": (1, 2), "model.num_classes": (1, None),
    "warmup.steps": (0, None), "warmup.batch": (2, None), "warmup.lr": (0, None),
    "rounds.per_task": (1, None), "rounds.total": (1, None), "rounds.clients_per_round": (1, None),
    "rounds.evaluate_every": (1, None),
    "participation.late": (0, 1), "participation.late_until": (2, None), "participation.dropout": (0, 1),
    "participation.stragglers": (0, 1), "participation.straggler_effort": (0, 1),
    "train.steps": (0, None), "train.epochs": (0, None), "train.batch": (2, None), "train.lr": (0, None),
    "train.weight_decay": (0, None), "train.label_smoothing": (0, 1), "train.triplet": (0, None),
    "train.contrast": (0, None), "train.contrast_temperature": (1e-3, None),
    "train.crop_pad": (0, None), "train.colour_jitter": (0, 1),
    "memory.size": (0, None), "memory.share": (0.01, 0.9),
    "checkpoint.every": (0, None), "exchange.timeout": (1e-3, None),
    "placement.gpus_per_node": (1, None), "placement.threads": (1, None),
}  # fmt: skip


def _get(experiment: Experiment, key: str) -> Any:
    value: Any = experiment
    for name in key.split("."):
        value = getattr(value, name)
    return value


def check(experiment: Experiment) -> None:
    """Raise InputError at the first value that no run could use."""
    for key, choices in CHOICES.items():
        value = _get(experiment, key)
        if value not in choices:
            raise InputError(f"{key} = {value!r}; {did_you_mean(value, choices)}expected one of {', '.join(choices)}")
    for key, (low, high) in RANGES.items():
        value = _get(experiment, key)
        if value is not None and not (math.isfinite(value) and low <= value and (high is None or value <= high)):
            bound = f"a finite number, at least {low}" if high is None else f"between {low} and {high}"
            raise InputError(f"{key} = {value}; expected {bound}")
    if not re.fullmatch(r"[\w][\w.-]*", experiment.name):
        raise InputError(f"name = {experiment.name!r}; expected letters, digits, '_', '-' and '.': it names a folder")
    if experiment.fault_tolerance and not experiment.checkpoint.every:
        raise InputError("fault_tolerance goes back to checkpoints, but checkpoint.every is 0; set it to 1 or more")
    if experiment.data.kind != "synthetic" and not experiment.data.path:
        raise InputError(
            f"data.kind is {experiment.data.kind} but data.path is not set; name the images' folder or the pack"
        )
    pad, side = experiment.train.crop_pad, min(experiment.data.height, experiment.data.width)
    if pad >= side:
        raise InputError(f"train.crop_pad = {pad}; expected less than {side}, the shorter side of the images")
    if experiment.train.steps == 0 and experiment.train.epochs == 0:
        raise InputError("train.steps and train.epochs are both 0; set one of them")
    if experiment.train.early_stop and experiment.train.steps > 0:
        raise InputError("train.early_stop counts epochs, but train.steps is set; set train.steps=0 to count epochs")
