"""Files and folders that are there only when they are complete."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARTIAL = ".partial"
"""How the name of what is not complete ends."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A name beside `path` to write a file to, which gets the name `path` when the block ends well.

    By then its bytes are on the disk. Where the block fails, nothing is left of it, and what `path` was before is still
    there. Raises OSError.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL}")
    try:
        yield partial
        complete(partial, path)
    finally:
        with suppress(OSError):  # mostly there is nothing to remove
            partial.unlink()


def write_text(path: Path, text: str) -> None:
    """Write or replace a UTF-8 file, which is there only when it is complete. Raises OSError."""
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def complete(partial: Path, path: Path) -> None:
    """Rename a file, or a folder whose files are on the disk, so that the new name lasts through a power failure.

    A file at `path`, or an empty folder, is replaced. Raises OSError.
    """
    sync(partial)
    partial.replace(path)
    with suppress(OSError):  # not all file systems sync folders
        sync(path.parent)


def sync(path: Path) -> None:
    """Bring a file's bytes, or a folder's names, to the disk. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
