"""The seal in front of a pack tells whether the file is whole and unchanged, before any library parses it.

It is a checksum, no signature: whoever can write the file can write its seal. Take packs only from whom you trust.
"""

import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from fedstil_mpi.util.errors import InputError

MAGIC = b"\x89fedstil pack\r\n\x1a"
VERSION = 1
"""The version of the seal and of what lies behind it. It stands right behind MAGIC in every version."""
SIZE = 512
"""Bytes of the seal, the smallest place that HDF5 leaves to others at a file's beginning (its user block)."""

_FIELDS = struct.Struct("<16sI4xQQQ")
"""MAGIC, VERSION, size of the file, where the pixels begin, how many bytes they take. The digest follows, then zeros."""
_DIGEST = slice(_FIELDS.size, _FIELDS.size + hashlib.sha256().digest_size)
_CHUNK = 1 << 20


class Extent(NamedTuple):
    """Where in the file the pixels lie, in bytes."""

    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length


def seal(before: bytes, after: bytes, pixels: Extent) -> bytes:
    """The seal of a file that has the bytes `before` (beginning with SIZE for the seal) and `after` around its pixels."""
    fields = _FIELDS.pack(MAGIC, VERSION, pixels.end + len(after), *pixels)
    digest = hashlib.sha256(fields)
    for rest in (bytes(SIZE - _DIGEST.stop), before[SIZE:], after):
        digest.update(rest)
    return (fields + digest.digest()).ljust(SIZE, b"\0")


def check(path: Path) -> Extent:
    """Where the pixels of a pack lie. Raises InputError unless the file is whole and all but its pixels unchanged."""
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            found = "is a folder" if path.is_dir() else "is no file" if path.exists() else "does not exist"
            raise InputError(f"{path} {found}; expected a pack written by fedstil_mpi: correct the path")
        with path.open("rb") as file:
            return _check(path, file)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); expected a pack: make it readable") from error


def _check(path: Path, file: BinaryIO) -> Extent:
    head = file.read(SIZE)
    size = file.seek(0, os.SEEK_END)
    again = "copy it again or build it again"
    if not head.startswith(MAGIC):
        raise InputError(f"{path} is no pack: it begins with {head[:8]!r}, expected {MAGIC[:8]!r}; correct the path")
    if size < SIZE:
        raise InputError(f"{path} is cut short: it has {size:,} bytes, expected more than {SIZE}; {again}")
    _, version, expected, start, length = _FIELDS.unpack_from(head)
    if version != VERSION:
        raise InputError(
            f"{path} is a pack of version {version}, expected version {VERSION}: build it again, or use the release of "
            "fedstil_mpi that wrote it"
        )
    if size != expected:
        raise InputError(f"{path} is cut short or too long: it has {size:,} bytes, expected {expected:,}; {again}")
    pixels = Extent(start, length)
    if start < SIZE or pixels.end > size or _digest(file, pixels, size) != head[_DIGEST]:
        raise InputError(
            f"{path} is damaged: what it holds beside its pixels does not have the SHA-256 in its seal; {again}"
        )
    return pixels


def _digest(file: BinaryIO, pixels: Extent, size: int) -> bytes:
    """SHA-256 of all bytes of the file but the pixels and the place of the digest."""
    digest = hashlib.sha256()
    for start, stop in ((0, _DIGEST.start), (_DIGEST.stop, pixels.start), (pixels.end, size)):
        for chunk in _chunks(file, start, stop):
            digest.update(chunk)
    return digest.digest()


def _chunks(file: BinaryIO, start: int, stop: int) -> Iterator[bytes]:
    file.seek(start)
    for place in range(start, stop, _CHUNK):
        yield file.read(min(_CHUNK, stop - place))
