"""State trees as files: safetensors, which hold nothing but tensors, and whose plain values are JSON text in one of them.

A file is there only when it is complete, and is parsed only when its size and SHA-256 are what the writer noted.
"""

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save
from safetensors.torch import load

from fedstil_mpi.errors import InputError
from fedstil_mpi.state import State, flatten, unflatten

PLAIN = "state.json"
"""The tensor, uint8, that holds the plain values."""

Note = dict[str, Any]
"""What is noted of a file: size (bytes) and sha256 (hexadecimal)."""


def encode(state: State) -> bytes:
    """A state tree as the bytes of a file; the state may change from now on."""
    tensors, plain = flatten(state)
    arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
    arrays[PLAIN] = np.frombuffer(json.dumps(plain).encode(), np.uint8)
    return save(arrays)  # safetensors.torch.save takes ten times as long, more than all the rest


def write(path: Path, data: bytes) -> Note:
    """Write what `encode` gave; returns what to note of the file. Raises InputError where the disk does not take it."""
    write_bytes(path, data)
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def read(path: Path, note: Note) -> State:
    """The tree that `encode` was given. Raises InputError naming the file where it is not what was noted."""
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size == note["size"] else b""  # nothing huge is read that is refused anyway
    except OSError as error:
        raise _damaged(path, f"cannot be read ({error.strerror})") from None
    if size != note["size"]:
        raise _damaged(path, f"has {size} bytes, expected {note['size']}")
    if hashlib.sha256(data).hexdigest() != note["sha256"]:
        raise _damaged(path, "is not what was written (its SHA-256 differs)")
    try:
        tensors = load(data)
        plain = json.loads(tensors.pop(PLAIN).numpy().tobytes())
        return unflatten(tensors, plain)
    except Exception as error:  # only of use against a forger who knows the checksum
        raise _damaged(path, f"cannot be read ({' '.join(str(error).split())})") from None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a dict with a checksum of its own."""
    write_bytes(path, _text(content))


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` was given. Raises InputError naming the file where it is damaged."""
    try:
        data = path.read_bytes()
        content = json.loads(data)
        del content["sha256"]
    except (OSError, ValueError, KeyError, RecursionError, TypeError):
        raise _damaged(path, "cannot be read") from None
    if data != _text(content):
        raise _damaged(path, "is not what was written (its SHA-256 differs)")
    return content


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that it is there, and on the disk, only when it is complete. Makes its folder if need be."""
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        remedy = (
            "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "correct the folder's rights"
        )
        raise InputError(
            f"{path} ({len(data)} bytes) cannot be written ({error.strerror}): {remedy}, then go on with --resume"
        ) from None


def sync(folder: Path) -> None:
    """Bring a folder's names to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _text(content: dict[str, Any]) -> bytes:
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return json.dumps(content | {"sha256": digest}, indent=1).encode()


def _damaged(path: Path, how: str) -> InputError:
    return InputError(
        f"checkpoint file {path} {how}; remove {path.parent} to go on from an earlier checkpoint, or the run folder to "
        "start anew"
    )
