"""Run folders, read back as plain arrays; needs neither torch nor MPI."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from fedstil_mpi.config import files
from fedstil_mpi.evaluation.scopes import headline
from fedstil_mpi.results import CONFIG_FILE, MODELS, RESULTS_FILE, TASK_FREE
from fedstil_mpi.util import hdf5
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.files import regular_file

MOST_MIXED = 100
"""Clients up to which a mixing matrix is read."""
SMALL = 64 << 20
"""Bytes of the other files that are read."""


class Evaluations(NamedTuple):
    """What the clients' local, or served, models were worth over the rounds of a run."""

    rounds: np.ndarray
    """int [evaluations]: after which round each took place."""
    metrics: np.ndarray
    """float64 [evaluations, clients, tasks, Run.metrics], fractions; nan where nothing was searched."""
    rank1_matrices: np.ndarray
    """float64 [clients, stage, task], fractions: the last evaluation at that stage."""
    final: dict[str, np.ndarray]
    """At the end, in percent, float64 [clients] each: the metrics, forgetting and transfer."""


@dataclass(frozen=True, repr=False)
class Run:
    """One complete run."""

    folder: Path
    config: dict[str, Any]
    """The resolved config, as nested sections."""
    has_checksum: bool
    """Whether damage to its results would be noticed; those of older versions have none."""
    label: str | None
    """What a comparison calls it, where one made it."""
    environment: dict[str, Any]
    metrics: tuple[str, ...]
    """Names of the last axis of Evaluations.metrics."""
    scopes: tuple[str, ...]
    """Where queries were searched, and whose, see `evaluation.scopes`."""
    evaluations: dict[tuple[str, str], Evaluations]
    """Model and scope -> evaluations: of MODELS, and where tasks have models of their own of TASK_FREE."""
    online: np.ndarray
    """bool [rounds, clients]: who took part."""
    ledger: dict[str, np.ndarray]
    """Columns of one length: round, client, direction (S2C or C2S), kind, raw and encoded bytes."""
    relevances: dict[int, np.ndarray]
    """Round -> float32 [clients, clients], how was mixed at its start what each client got, nan where it got nothing, of the
    first MOST_MIXED clients; empty where a method mixes nothing."""
    seconds: dict[str, np.ndarray]
    """Activity -> seconds of each rank, float64 [ranks]; nan where a rank has none."""

    def __repr__(self) -> str:
        return f"<Run {self.folder}: {self.config['method']['name']}, seed {self.seed}, {self.clients} clients x {self.tasks} tasks>"

    def of(self, model: str, scope: str | None = None) -> Evaluations:
        """What a model was worth in a scope; None: in the one whose numbers are told alone. KeyError where it has none."""
        return self.evaluations[model, scope or headline(self.scopes)]

    @property
    def ranks(self) -> int:
        return max(map(len, self.seconds.values()), default=0)

    @property
    def clients(self) -> int:
        return self.online.shape[1]

    @property
    def tasks(self) -> int:
        return self.of("served").metrics.shape[2]

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @property
    def per_task(self) -> int:
        """Rounds a client takes part in before its next task."""
        return self.config["rounds"]["per_task"]


def find(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The folders of complete and of interrupted runs at or below each path, each once, in alphabetical order.

    Raises InputError for a path with no run at all, and where no run is complete.
    """
    complete: list[Path] = []
    interrupted: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found = "is a file" if path.exists() else "does not exist"
            raise InputError(f"{path} {found}; expected a run folder, or a folder that holds run folders")
        done = {file.parent for file in path.rglob(RESULTS_FILE)}
        begun = {file.parent for file in path.rglob(CONFIG_FILE)} - done
        if not done | begun:
            raise InputError(
                f"{path} has no results.h5, nor has a folder in it; expected a run folder, or one that holds run folders"
            )
        complete += sorted(done)
        interrupted += sorted(begun)
    if not complete:
        names = ", ".join(map(str, interrupted))
        raise InputError(f"{names}: config.yaml but no results.h5, so the run is not complete; run it again")
    return list({folder.resolve(): folder for folder in complete}.values()), list(dict.fromkeys(interrupted))


def read(folder: Path | str) -> Run:
    """One complete run. Raises InputError where a file of it is missing or broken."""
    folder = Path(folder)
    path = folder / RESULTS_FILE
    config = _config(folder / CONFIG_FILE)
    with hdf5.parsed(path, "results") as file:
        found = _results(file, str(dict(files.leaves(config)).get("evaluation.gallery", "task")))
    return Run(
        folder=folder,
        config=config,
        has_checksum=hdf5.has_checksum(path),
        label=_label(folder / "label"),
        environment=_json(folder / "environment.json"),
        **found,
    )


def _results(file: h5py.File, gallery: str) -> dict[str, Any]:
    """gallery: where the queries of older versions were searched, whose results have no axis for that."""
    ledger = file["ledger"][()]
    reports = file["training/reports"][()]
    scopes = tuple(_plain(file["scope"][()]).tolist()) if "scope" in file else (gallery,)
    models = (*MODELS, *(name for name in TASK_FREE if name in file))
    return {
        "metrics": tuple(map(str, file.attrs["metrics"])),
        "scopes": scopes,
        "evaluations": {
            (model, scope): _evaluations(file[model], at if "scope" in file else None)
            for model in models
            for at, scope in enumerate(scopes)
        },
        "online": np.isfinite(reports[:, :, 2]),  # the images a client trained on; its loss may be anything
        "ledger": {name: _plain(ledger[name]) for name in ("round", "client", "direction", "kind", "raw", "encoded")},
        "relevances": dict(zip(*_relevances(file), strict=True)),
        "seconds": {activity: of_ranks[()] for activity, of_ranks in file["seconds"].items() if not of_ranks.is_scale},
    }


def _evaluations(group: h5py.Group, scope: int | None) -> Evaluations:
    """scope: where it stands on its axis; None where there is no such axis."""
    at = () if scope is None else (slice(None), scope)  # of each client
    final = {name: values[at] for name, values in group["final"].items()}
    metrics = group["metrics"][() if scope is None else (slice(None), *at)]
    return Evaluations(group["rounds"][()], metrics, group["accuracy_matrix/rank1"][at], final)


def _relevances(file: h5py.File) -> tuple[list[int], np.ndarray]:
    if "relevance" not in file:
        return [], np.empty(0)
    return file["relevance/rounds"][()].tolist(), file["relevance/matrices"][:, :MOST_MIXED, :MOST_MIXED]


def _plain(column: np.ndarray) -> np.ndarray:
    """Text as NumPy's own strings, whose comparisons run over whole arrays."""
    return np.char.decode(column.astype("S"), "utf-8") if column.dtype.kind in "OS" else column


def _config(path: Path) -> dict[str, Any]:
    """A resolved config that has what the report needs of it."""
    config = files.parse(path)
    for key, kind in {"seed": int, "method.name": str, "rounds.per_task": int}.items():
        value: Any = config
        for name in key.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if not isinstance(value, kind):
            wanted = "a whole number" if kind is int else "a name"
            raise InputError(f"{path} has {key} = {value!r}; expected {wanted}, as in the config that a run saves")
    return config


def _json(path: Path) -> dict[str, Any]:
    """Raises InputError where the file is there but holds no JSON object."""
    if not path.exists():
        return {}
    try:
        found = json.loads(regular_file(path, "environment", SMALL).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}); expected JSON as a run writes it") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} holds a {type(found).__name__}; expected a JSON object as a run writes it")
    return found


def _label(path: Path) -> str | None:
    """The first line of the file in which a comparison names its run."""
    if not path.exists():
        return None
    text = regular_file(path, "label", SMALL).read_text(encoding="utf-8", errors="replace")
    return next(iter(text.splitlines()), "").strip() or None
