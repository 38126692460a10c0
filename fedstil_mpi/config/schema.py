"""The experiment as dataclasses: what decides a result, from the sections of a config file."""

import json
import re
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

from fedstil_mpi.config.fields import bounded, check_values, choice
from fedstil_mpi.config.sections import (
    Checkpoint,
    Compression,
    Data,
    Evaluation,
    Exchange,
    Memory,
    Model,
    Participation,
    Placement,
    Prototypes,
    Rounds,
    Serving,
    Train,
    Warmup,
)
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.plugins import is_plugin

LONGEST_NAME = 200
"""Bytes."""
MOST_SIGHTINGS = 2_000_000
"""Of the synthetic stream: clients x tasks x people, of whose walks all ranks know."""


@dataclass(kw_only=True)
class Method:
    """Which method; its own options stand beside these two keys (see the Options of fedstil_mpi/methods/<name>.py)."""

    name: str = "fedstil"
    """A built-in method, or the user's own: a .py file or a module, as in fedstil_mpi/methods/base.py."""
    preset: str = "best"
    options: Any = None
    """The method's Options, filled in from its preset and the keys beside name and preset."""
    overridden: dict[str, str] = field(default_factory=dict)
    """What is not as the preset has it: "memory.size" -> "48 (preset: 0)". Found, no key of a config."""

    @property
    def preset_and_more(self) -> str:
        """The preset's name, with what is not as it has it."""
        return ", ".join([self.preset, *(f"but {key}={value}" for key, value in self.overridden.items())])


@dataclass(kw_only=True)
class Experiment:
    """Everything that decides a result. The number of ranks is not part of it."""

    name: str = "experiment"
    """Name of the run folder."""
    seed: int = bounded(1, -(2**63), 2**63 - 1)
    output: str = "runs"
    """Folder that holds the run folders."""
    resume: str = choice("never", "auto")
    """never (a run folder that holds anything is refused) | auto (an interrupted run goes on from its last checkpoint, a
    complete one is left as it is)."""
    fault_tolerance: bool = False
    """When ranks with clients die, the others go back to the last checkpoint and go on; needs mpirun --with-ft ulfm of
    Open MPI 5. The loss of rank 0, the server, ends the job."""
    lost_clients: str = choice("adopt", "offline")
    """What becomes of a dead rank's clients: adopt (other ranks take them over; the results are those of a run in which
    nobody died) | offline (they take no part from then on, as cameras would that have broken)."""
    save_models: bool = False
    """Keep the stem and every client's last tail in the run folder, as safetensors: what it is served in the end, and what it
    had learned before the last exchange."""
    tracking: list[str] = field(default_factory=list, metadata={"each": ("tensorboard", "mlflow")})
    """Programs that are told how the run goes, beside what it writes itself: tensorboard (event files in the run folder) |
    mlflow (wherever MLFLOW_TRACKING_URI says). Each is an optional extra: pip install 'fedstil-mpi[tensorboard]'."""
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    warmup: Warmup = field(default_factory=Warmup)
    rounds: Rounds = field(default_factory=Rounds)
    participation: Participation = field(default_factory=Participation)
    train: Train = field(default_factory=Train)
    memory: Memory = field(default_factory=Memory)
    prototypes: Prototypes = field(default_factory=Prototypes)
    serving: Serving = field(default_factory=Serving)
    compression: Compression = field(default_factory=Compression)
    evaluation: Evaluation = field(default_factory=Evaluation)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    exchange: Exchange = field(default_factory=Exchange)
    placement: Placement = field(default_factory=Placement)
    method: Method = field(default_factory=Method)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.output) / self.name

    def as_json(self) -> str:
        """As a config file that gives this experiment again: the method's options stand beside its name and preset."""
        tree = asdict(self)
        del tree["method"]["overridden"]
        options = tree["method"].pop("options") or {}
        tree["method"] |= options
        return json.dumps(tree, indent=2)


def check(experiment: Experiment) -> None:
    """Raise InputError at the first value that no run could use."""
    check_values(experiment)
    if is_dataclass(experiment.method.options):
        check_values(experiment.method.options, "method.")
    check_folder_name(experiment.name)
    if experiment.fault_tolerance and not experiment.checkpoint.every:
        raise InputError("fault_tolerance goes back to checkpoints, but checkpoint.every is 0; set it to 1 or more")
    if experiment.fault_tolerance and experiment.placement.clients == "dealt":
        raise InputError(
            "placement.clients is dealt, but with fault_tolerance=true a client belongs to its rank, with which it may be lost; set "
            "placement.clients=auto or fault_tolerance=false"
        )
    kind = experiment.data.kind
    if kind != "synthetic" and not is_plugin(kind) and not experiment.data.path:
        raise InputError(f"data.kind is {kind} but data.path is not set; name the images' folder or the pack")
    if not all(isinstance(client, int) for client in experiment.data.clients or []):  # OmegaConf lets [[1]] pass
        raise InputError(f"data.clients = {experiment.data.clients}; expected a list of numbers, or null for all")
    people = experiment.data.synthetic
    in_task = people.people_per_task + people.strangers
    if (sightings := people.clients * experiment.data.tasks * in_task) > MOST_SIGHTINGS:
        raise InputError(
            f"data.synthetic has {people.clients} clients x {experiment.data.tasks} tasks x {in_task} people = {sightings:,}; "
            f"expected at most {MOST_SIGHTINGS:,} in all"
        )
    for key in ("up", "down"):
        codec = getattr(experiment.compression, key)
        if codec != "none" and experiment.train.on_divergence == "continue":
            raise InputError(
                f"train.on_divergence is continue, but compression.{key}={codec} has no code for what is not finite; "
                f"set train.on_divergence=stop or compression.{key}=none"
            )
    pad, side = experiment.train.crop_pad, min(experiment.data.height, experiment.data.width)
    if pad >= side:
        raise InputError(f"train.crop_pad = {pad}; expected less than {side}, the shorter side of the images")
    if experiment.train.steps == 0 and experiment.train.epochs == 0:
        raise InputError("train.steps and train.epochs are both 0; set one of them")
    if experiment.train.steps > 0:
        for key, counts_epochs in {
            "train.early_stop": experiment.train.early_stop,
            "train.rate=reference_code": experiment.train.rate == "reference_code",
        }.items():
            if counts_epochs:
                raise InputError(f"{key} counts epochs, but train.steps is set; set train.steps=0 to count epochs")


def check_folder_name(name: str) -> None:
    """Raise InputError where the name of a run, or of a comparison, is none that a folder can have everywhere."""
    if not re.fullmatch(r"\w[\w.-]*", name) or len(name.encode()) > LONGEST_NAME:
        raise InputError(
            f"name = {name!r}; expected at most {LONGEST_NAME} letters, digits, '_', '-' and '.': it names a folder"
        )
