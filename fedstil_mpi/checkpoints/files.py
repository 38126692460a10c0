"""State trees as files: safetensors, which hold nothing but tensors, and whose plain values are JSON text in one of them.

A file is there only when it is complete, and is parsed only when its size and SHA-256 are what the writer noted.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from fedstil_mpi.checkpoints import FOLDER, START
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.files import PARTIAL, atomic, regular_file, storing
from fedstil_mpi.util.state_tree import State, arrays, from_bytes

AT_MOST = 1 << 30
"""Bytes of a list of files."""

Note = dict[str, Any]
"""What is noted of a file: size (bytes) and sha256 (hexadecimal)."""

Snapshot = dict[str, np.ndarray]
"""What becomes a file, by name of the tensor in it."""


def copy(state: State) -> Snapshot:
    """What a state tree is now; it may change from then on."""
    return {name: array.copy() for name, array in arrays(state).items()}


def write(path: Path, snapshot: Snapshot) -> Note:
    """Write a file; returns what to note of it. Raises StorageError where the disk does not take it."""
    with _completed(path) as unfinished:
        try:
            save_file(snapshot, unfinished)
        except SafetensorError as error:
            raise OSError(str(error)) from None
        with unfinished.open("rb") as file:
            return {"size": unfinished.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def read(path: Path, note: Note) -> State:
    """The tree that `copy` was given. Raises InputError naming the file where it is not what was noted."""
    data = _bytes(path, note["size"])
    if len(data) != note["size"]:
        raise _damaged(path, f"has {len(data)} bytes, expected {note['size']}")
    if hashlib.sha256(data).hexdigest() != note["sha256"]:
        raise _damaged(path, "is not what was written (its SHA-256 differs)")
    try:
        return from_bytes(data)
    except Exception as error:  # only of use against a forger who knows the checksum
        raise _damaged(path, f"cannot be read ({error})") from None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a dict with a checksum of its own. Raises StorageError where the disk does not take it."""
    with _completed(path) as unfinished:
        unfinished.write_bytes(_text(content))


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` was given. Raises InputError naming the file where it is damaged."""
    data = _bytes(path, AT_MOST)
    try:
        content = json.loads(data)
        del content["sha256"]
    except (ValueError, KeyError, RecursionError, TypeError):
        raise _damaged(path, "is no JSON object with a checksum") from None
    if data != _text(content):
        raise _damaged(path, "is not what was written (its SHA-256 differs)")
    return content


def partial(path: Path) -> Path:
    """What a folder is called until it is complete."""
    return path.with_name(path.name + PARTIAL)


def _text(content: dict[str, Any]) -> bytes:
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return json.dumps(content | {"sha256": digest}, indent=1).encode()


@contextmanager
def _completed(path: Path) -> Iterator[Path]:
    """As `util.files.atomic`. Makes the folder if need be; raises StorageError where the disk does not take the file."""
    with storing(path):
        make_folder(path.parent)
        with atomic(path) as unfinished:
            yield unfinished


def make_folder(folder: Path) -> None:
    """Make a folder of the checkpoints, and those above it that are checkpoints' too, but no run folder. Raises OSError."""
    if folder.name != FOLDER:
        make_folder(folder.parent)
    folder.mkdir(exist_ok=True)


def _bytes(path: Path, at_most: int) -> bytes:
    remedy = f"see to the disk, or {_elsewhere(path)}"
    try:
        return regular_file(path, "checkpoint file", at_most, remedy).read_bytes()
    except OSError as error:
        raise InputError(f"checkpoint file {path} cannot be read ({error.strerror}); {remedy}") from None


def _damaged(path: Path, how: str) -> InputError:
    return InputError(f"checkpoint file {path} {how}; {_elsewhere(path)}")


def _elsewhere(path: Path) -> str:
    if path.parent.name == START:
        return "bring it back from a copy, or choose another name= to start again"
    return (
        f"move {path.parent} elsewhere to go on from the checkpoint before it, or choose another name= to start again"
    )
