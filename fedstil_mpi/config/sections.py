"""Every section of a config file: each key, its default, what it means and which values it takes."""

from dataclasses import dataclass, field
from typing import Any

from fedstil_mpi.config.fields import FLOAT32, bounded, choice
from fedstil_mpi.config.synthetic import SyntheticOptions

LOSSY = ("float16", "bfloat16", "int8", "int4", "int3", "ternary", "ternary_entropy", "sign")
"""The codecs of weights, see `comm.lossy`."""


@dataclass(kw_only=True)
class Data:
    kind: str = choice("synthetic", "folder", "pku", "pack", plugin=True)
    """synthetic (people who walk between cameras, drawn from the seed) | folder (task-<client>-<task>/{train,query,
    gallery}/<person>/<image>) | pku (PKU-Reid's file names, split into four clients) | pack (one file with all images,
    which python -m fedstil_mpi.data writes) | the user's own: a .py file or a module, as in fedstil_mpi/data/sources.py."""
    path: str | None = None
    """Where the images are; for folder, pku and pack. {seed} in it stands for the experiment's seed: another division of the
    people for each seed of a comparison."""
    camera_pattern: str | None = None
    """For folder: a regular expression with a group camera, such as 'cam(?P<camera>[0-9]+)_', searched in each image's path
    below the folder; null: cameras.csv in the folder (columns path and camera), else the names (c1s1, cam01, MSMT17's, ...)."""
    follow_links: bool = False
    """For folder: follow links that lead out of it, too, instead of passing them over."""
    height: int = bounded(64, 8, 4096)
    """Pixels; images are resized to height x width, synthetic ones drawn so (32 x 16 or larger); a pack's have theirs."""
    width: int = bounded(32, 8, 4096)
    tasks: int = bounded(6, 1, 10_000)
    """Tasks per client; a folder and a pack bring their own number."""
    clients: list[int] | None = None
    """Use only these clients of the stream, as if there were no others; null: all."""
    pooled: bool = False
    """Every client trains on all clients' images of a task, with the steps and the memory of all of them: what exchange is
    worth if images could travel. An upper bound for one model; not for methods that keep what a client knows apart."""
    validation: bool = False
    """Hold one training image a person and task out and search for it among those of the other clients, in the place
    of the test's queries and galleries: choose settings on this, and report the test."""
    synthetic: SyntheticOptions = field(default_factory=SyntheticOptions)
    """The synthetic stream's own knobs."""

    def path_for(self, seed: int) -> str:
        """`path` with the experiment's seed filled in; empty where there is none."""
        return (self.path or "").replace("{seed}", str(seed))


@dataclass(kw_only=True)
class Model:
    backbone: str = "mobilenet_v2"
    """resnet18 | resnet34 | resnet50 | resnet101 | resnet152 | mobilenet_v2 | swin_t | swin_s | swin_b | vit_b_16 | vit_b_32
    | vit_l_16 | timm:NAME, a Vision Transformer of timm's | the user's own: a .py file or a module, as in
    fedstil_mpi/models/registry.py."""
    split: str | None = None
    """First layer of the tail; null: the backbone's last stage. What lies before it is frozen."""
    last_stride: int = bounded(1, 1, 2)
    """Stride of the last stage that reduces resolution, 1 or 2; transformers have no such stride and ignore it."""
    neck: str = choice("bnneck", "plain")
    """bnneck (batch norm before a classifier without bias) | plain."""
    weights: str = "none"
    """imagenet (torchvision's or timm's) | none (drawn from the seed) | a local .pt, .pth or .safetensors file."""
    num_classes: int | None = bounded(None, 1, 10**8)
    """Width of the classifier, at least as many as are trained on; null: as many. They are numbered without gaps for it."""
    precision: str = choice("float32", "bfloat16", "auto")
    """In which clients compute, in training and in search; weights and messages are float32. auto: bfloat16 where all
    ranks' processors or GPUs have instructions for it, else float32; a run keeps what it began with."""


@dataclass(kw_only=True)
class Warmup:
    """The server trains the whole backbone on its own labelled images before round 1 and sends it to every client."""

    steps: int = bounded(0, 0, 10**7)
    """Optimiser steps; 0: no warm-up."""
    threads: int = bounded(2, 1, 1024)
    """Of its arithmetic on a CPU, while the other ranks wait. The model depends on it in its last bits, but not on how many
    cores there are."""
    batch: int = bounded(32, 2, 10**6)
    lr: float = bounded(1e-3, 0, FLOAT32)
    """Peak of a one-cycle cosine schedule."""


@dataclass(kw_only=True)
class Rounds:
    per_task: int = bounded(2, 1, 10**6)
    """Rounds a client takes part in before its next task begins."""
    total: int | None = bounded(None, 1, 10**7)
    """Rounds altogether; null: as many as full participation needs for all tasks."""
    clients_per_round: int | None = bounded(None, 1, 20_000)
    """Clients drawn for a round, without replacement; null: all."""
    exchange_every: int = bounded(1, 1, 10**7)
    """A client exchanges in every so many-th of the rounds that it takes part in, and at the end: it is sent knowledge before
    the first of them, trains through all of them, and sends what it learned after the last. In the others nothing travels;
    a new client gets the start model, and what the server knows, whenever it comes. Of tasks that begin and end between two
    exchanges FedSTIL's server hears as of one, and FedWeIT sends what they moved through the mask of the last."""
    evaluate_every: int | None = bounded(None, 1, 10**7)
    """Rounds between two evaluations; null: at the last round of each task. The last round is always evaluated."""


@dataclass(kw_only=True)
class Participation:
    """Clients that join late, are away, or fall behind; drawn from the seed, the same for every method.

    In a round in which no client would take part, one is drawn to do so.
    """

    late: float = bounded(0.0, 0, 1)
    """Share of the clients that are not there from the start; such a client gets the start model when it joins."""
    late_until: int | None = bounded(None, 2, 10**7)
    """Each of them joins in a round drawn from 2 to this one, or never if that is after the last; null: half of all."""
    dropout: float = bounded(0.0, 0, 1)
    """Chance of each client, in each round, to be away. Its stream waits for it."""
    away: list[Any] = field(default_factory=list)
    """When clients are away besides: each entry is [client, first round, last round], for example [[0, 3, 5], [2, 1, 9]]."""
    stragglers: float = bounded(0.0, 0, 1)
    """Chance of each client, in each round, to get only a part of its local training done in time."""
    straggler_effort: float = bounded(0.5, 0, 1)
    """That part, of its steps or epochs; at least one of them is done."""


@dataclass(kw_only=True)
class Train:
    steps: int = bounded(12, 0, 10**7)
    """Optimiser steps a round; 0: count epochs instead."""
    epochs: int = bounded(5, 0, 10**7)
    """Passes over the training set a round, used where steps is 0."""
    batch: int = bounded(32, 2, 10**6)
    lr: float = bounded(1e-3, 0, FLOAT32)
    """Adam's learning rate; its moments start from zero in each round."""
    weight_decay: float = bounded(1e-5, 0, FLOAT32)
    """Adam's coupled L2 term. It also moves weights that get no other gradient, such as the classifier's rows of people whom a
    client does not know: towards 0, by about `lr` a step."""
    label_smoothing: float = bounded(0.1, 0, 1)
    softmax: str = choice("known", "all")
    """known (over the people this client has met) | all (over every row of the classifier)."""
    early_stop: bool = False
    """Stop a round after three epochs without a better loss AND accuracy; needs epochs."""
    rate: str = choice("constant", "reference_code")
    """constant | reference_code (x0.1 every 5 epochs, reset each round, its counter never rewound)."""
    contrast: float = bounded(0.0, 0, FLOAT32)
    """Weight of a supervised contrastive loss beside the cross entropy, on the features that retrieval compares; 0: none.
    Images of a person are drawn together; with prototypes.exchange also to what other cameras saw of it."""
    contrast_temperature: float = bounded(0.1, 1e-3, FLOAT32)
    """The smaller, the more the contrastive loss minds the most alike of other people."""
    triplet: float = bounded(0.0, 0, FLOAT32)
    """Weight of a triplet loss beside the cross entropy: hardest positive and negative of the batch by the cosine of
    their features, margin 0.3; 0: none."""
    augment: str = choice("none", "flip", "default", "rose", "sharp", "drastic", default="flip")
    """none | flip (with probability 0.5) | default, rose, sharp, drastic (flip, and a random box erased with probability
    0.5, 0.6, 0.75, 0.9)."""
    crop_pad: int = bounded(0, 0, 4096)
    """Pixels of mean colour added around each image before it is cut back at a random place; 0: none."""
    colour_jitter: float = bounded(0.0, 0, 1)
    """j: each image's brightness, contrast and saturation times random numbers between 1 - j and 1 + j; 0: none."""
    refresh: str = choice("task", "round", "epoch", default="round")
    """How often training images pass the stem again with fresh augmentation: task | round | epoch."""
    on_divergence: str = choice("stop", "continue")
    """Where a client's loss or weights are no finite numbers any more: stop (the run ends with an error that names client,
    round and step) | continue (the client goes on, and a model that has diverged finds nobody: its figures are 0)."""


@dataclass(kw_only=True)
class Memory:
    size: int = bounded(90, 0, 10**7)
    """Representations of past people a client keeps for rehearsal, as evenly as can be; 0: no rehearsal."""
    share: float | None = bounded(0.5, 0.01, 0.9)
    """Share of each batch that is old; null: old and new are shuffled into one set, as the reference code does."""
    herding: str = choice("distinct", "repeat")
    """distinct (a sample is chosen once) | repeat (the reference code: picks may repeat and fill the quota)."""
    quota: str = choice("seen", "width")
    """How a person's share of size is found: seen (by all people this client has met) | width (FedSTIL's reference code: by
    the largest person id met plus 1)."""
    labels: str = choice("person", "collide")
    """person | collide (the reference code: an exemplar is trained with the newest person of its class index)."""


@dataclass(kw_only=True)
class Prototypes:
    exchange: bool = False
    """Send each task's mean representation of every person once; the server relays it to the clients that know the
    person. It is a mean over a handful of images and leaves the client: switch it off where that is not acceptable."""
    metric: bool = True
    """Where prototypes are exchanged, compare whatever is searched after an exchange by the cosine of features that are damped
    where two cameras' pictures of the same people differ (client/metric.py). Nothing more travels. Not where each task is
    searched with a model of its own."""
    norms: float = bounded(0.75, 0, 1)
    """There, too: share of the way by which batch norms are moved, for pictures by other cameras than the client's own, to how these
    show the people that both know (client/elsewhere.py). 0: all pictures pass alike. Cameras that are not known count as the
    client's own."""

    @property
    def compared(self) -> bool:
        """Whether clients keep those that they send, to search with what these and others' tell."""
        return self.exchange and bool(self.metric or self.norms)


@dataclass(kw_only=True)
class Serving:
    average: float = bounded(0.0, 0, 0.99)
    """Share of the past in the weights that a client is searched with after an exchange: the running mean
    m <- average * m + (1 - average) * theta of those that each exchange left it with; it trains on from the newest ones.
    0: searched with the newest, too. For methods that search with the weights that they exchange."""


@dataclass(kw_only=True)
class Compression:
    """Codecs of what travels: none (float32) | float16 | bfloat16 | int8 | int4 | int3 | ternary (1.6 bits a scalar) |
    ternary_entropy (about 1.0) | sign (1.0), all with a scale for each output channel and with error feedback."""

    up: str = choice("none", *LOSSY)
    """Of how far a client's weights moved."""
    down: str = choice("none", *LOSSY)
    """Of the weights that the server sends, against those that the client holds. Then a late joiner gets the start model's
    too, and FedAvg's weights are no longer the same message for all. What FedSTIL-atten and FedWeIT send of other clients'
    weights travels as it is."""
    first_contact: str = choice("none", "float16", "bfloat16", "int8")
    """Of the start model. The server then starts from what the clients get."""
    rows: str = choice("all", "known")
    """all | known (of the classifier only rows of people whom the client knows travel; others stay where they were. FedSTIL
    mixes a row over those who know the person)."""
    dead_zone: float = bounded(1.2, 0.5, 3)
    """Only for ternary_entropy. What is nearer to 0 than so many standard deviations of its channel is sent as 0; the larger,
    the fewer bits: 1.2 takes about 1.0 bit a scalar, 1.5 about 0.7."""
    upload_above: float = bounded(0.0, 0, 10)
    """A client sends how far its weights moved, with all that waits, once that is this share of the weights themselves (2-norms);
    until then it says that it waits, and the server goes on with what it knows of the client. 0: it always sends."""
    prototypes: str = choice("none", "float16", "bfloat16")
    """Of identity prototypes and task tokens."""
    importance: str = choice("none", "float16", "bfloat16")
    """Of FedCurv's importances; bfloat16 has the range of float32."""


@dataclass(kw_only=True)
class Evaluation:
    protocol: str = choice("market", "reference_code")
    """market (Market-1501: the same person at the same camera is junk, queries without a match do not count) |
    reference_code (FedSTIL's: first match only)."""
    allow_unknown_cameras: bool = False
    """Score by protocol market although the cameras of only some images are known: its rule then holds for those alone."""
    rerank: bool = False
    """Sort galleries by k-reciprocal re-ranking (Zhong et al., CVPR 2017; k1 20, k2 6, lambda 0.3) of queries and gallery
    instead of by cosine alone. Takes time and memory with the square of their number."""
    tasks: str = choice("seen", "all")
    """seen | all (future tasks too)."""
    gallery: list[str] = field(
        default_factory=lambda: ["client", "task"], metadata={"each": ("client", "task", "all"), "least": 1}
    )
    """Where a query is searched, one after the other, with the same features: client (the galleries of all evaluated tasks of
    its client) | task (its task's gallery) | all (those of all clients: a search across all cameras, whose cost grows with
    the square of their number). For all, every client describes its galleries with its own model, as an edge camera would;
    features of different models fit together only as far as the models agree. What is told in one number is that of
    client, or else of the first. A single word is a list of one."""


@dataclass(kw_only=True)
class Checkpoint:
    every: int = bounded(1, 0, 10**7)
    """Rounds between two checkpoints, of which the last two are kept until the run is complete; 0: none. With more than 1
    a run that is stopped inside a round goes on from the last checkpoint before it."""


@dataclass(kw_only=True)
class Exchange:
    timeout: float | None = bounded(3600.0, 1e-3, 1e9)
    """Seconds that a rank waits in a round for the others, one of which may still be training, before the job ends with an
    error: a cut link or a stopped process must not hang it for ever. null: no limit. Before the first round, while images
    are read and the model is warmed up, it is an hour if this is less."""


@dataclass(kw_only=True)
class Placement:
    device: str = choice("auto", "cpu", "cuda")
    """auto | cpu | cuda."""
    gpus_per_node: int | None = bounded(None, 1, 1024)
    """How many GPUs of a node to use; null: all that are visible. Asking for more than present is an error."""
    threads: int | None = bounded(None, 1, 4096)
    """CPU threads of each rank; null: OMP_NUM_THREADS if set, else the cores divided by the ranks that share them."""
    nvtx: bool = False
    """Name what a rank does (train, evaluate, exchange, ...) in the traces of Nsight Systems; takes torch with CUDA."""
    server: str = choice("auto", "rank_0", "all_ranks")
    """Where the server keeps the clients' weights: rank_0 (as a server of real edges would) | all_ranks (each has some
    of the columns of all clients and computes with these; FedAvg and its kin, FedCurv and FedSTIL, without codecs of weights) |
    auto (all_ranks where that is possible and all clients' weights take 1 GiB or more). Results are the same."""
    away: str = choice("auto", "memory", "files")
    """Where the weights of clients lie that sit a round out: memory | files (of each rank, in its host's folder for temporary
    files, TMPDIR; they are gone when the rank ends) | auto (files where all clients' weights take 1 GiB or more). Results are
    the same."""
    clients: str = choice("auto", "fixed", "dealt")
    """Who plays the clients of a round: fixed (each its own rank, for the whole run, as real edges would) | dealt (they are dealt to
    the ranks anew, longest first, so that all have about as much to do; a client moves with all that its rank has of it) | auto
    (dealt where that takes a tenth or more off what the busiest ranks train; fixed with fault_tolerance). Results are the same."""
    at_once: int | None = bounded(None, 1, 10**6)
    """Where clients' weights lie in files (`away`): how many clients of a round are in memory at a time, on all ranks together; where
    more are online the round goes in waves. null: as many as have 128 MiB of weights a rank. For FedAvg and its kin, FedCurv and
    FedSTIL. Results are the same."""
