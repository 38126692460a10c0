"""What the files are that a config names: by what is in them, wherever they lie.

A pack or a data set may be staged on a node's own disk, and a path may be relative: the run is the same.
"""

import hashlib
import os
from functools import cache
from pathlib import Path

from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.data.files.listing import SUFFIXES
from fedstil_mpi.data.pack import seal
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.files import expanded, regular_file

LABELS = (".csv", ".mat", ".txt")
"""What can say who is in which image."""
AT_MOST = 1 << 44
"""Bytes of a file."""


def contents(experiment: Experiment) -> dict[str, str]:
    """The config's keys whose value is a path -> a digest of what is there; without those that are no path.

    Of a pack its seal, which vouches for the rest; of a folder the names and sizes of its files.
    """
    data, weights = experiment.data, experiment.model.weights
    paths = {"data.path": data.path_for(experiment.seed), "model.weights": weights if "." in weights else ""}
    front = {"data.path": seal.SIZE if data.kind == "pack" else None}
    return {key: found for key, path in paths.items() if path and (found := _digest(path, front.get(key)))}


@cache
def _digest(path: str, front: int | None) -> str:
    """SHA-256, hexadecimal, of a file, or of its first bytes; taken once a process. Empty where it cannot be read."""
    try:
        place = expanded(path)
        if place.is_dir():
            return hashlib.sha256(_listing(place)).hexdigest()
        with regular_file(place, "file", AT_MOST).open("rb") as file:
            if front is not None:
                return hashlib.sha256(file.read(front)).hexdigest()
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError, InputError):  # who opens it says so better
        return ""


def _listing(root: Path) -> bytes:
    """Names and sizes of the images, and of the files that label them."""
    found = []
    for folder, _, names in os.walk(root):
        paths = [os.path.join(folder, name) for name in names if name.lower().endswith((*SUFFIXES, *LABELS))]
        found += [f"{os.path.relpath(path, root)}\0{os.path.getsize(path)}" for path in paths]
    return "\n".join(sorted(found)).encode(errors="surrogateescape")
