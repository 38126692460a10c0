"""Files: those that others give are looked at before they are opened; those written are there only when complete."""

import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedstil_mpi.util.errors import InputError, StorageError

PARTIAL = ".partial"
"""How the name of what is not complete ends."""


def regular_file(path: str | Path, what: str, at_most: int, remedy: str | None = None) -> Path:
    """The path of a file that can be opened and read to its end, with `~` expanded.

    what: what the file is, for the message: "config file". at_most: bytes. remedy: what the user can do; by default, to
    give the path of such a file. Raises InputError where there is nothing, a folder, a pipe, a device, or more bytes.
    """
    path = expanded(path)
    try:
        found = path.stat()
    except FileNotFoundError:
        problem = "does not exist"
    except (OSError, ValueError) as error:  # ValueError: a null byte
        problem = f"cannot be read ({getattr(error, 'strerror', None) or error})"
    else:
        if not stat.S_ISREG(found.st_mode):
            problem = f"is a {'folder' if stat.S_ISDIR(found.st_mode) else 'pipe or a device'}, no file"
        elif found.st_size > at_most:
            problem = f"has {found.st_size:,} bytes, expected at most {at_most:,}"
        else:
            return path
    raise InputError(f"{what} {path} {problem}; {remedy or f'give the path of a {what}'}")


def expanded(path: str | Path) -> Path:
    """The path with a leading `~` or `~user` replaced by that home folder, where it is known."""
    return Path(os.path.expanduser(path))


@contextmanager
def atomic(path: Path, *, new: bool = False) -> Iterator[Path]:
    """A name beside `path` to write a file to, which gets the name `path` when the block ends well.

    By then its bytes are on the disk. Where the block fails, nothing is left of it, and what `path` was before is still
    there. new: what another has written to `path` meanwhile is not replaced, but a FileExistsError. Raises OSError.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL}")
    try:
        yield partial
        if new:
            sync(partial)
            path.touch(exist_ok=False)
        complete(partial, path)
    finally:
        with suppress(OSError):  # mostly there is nothing to remove
            partial.unlink()


def write(path: Path, data: bytes) -> None:
    """Write or replace a file, which is there only when it is complete. Raises OSError."""
    with atomic(path) as partial:
        partial.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """The same for UTF-8 text. Raises OSError."""
    write(path, text.encode())


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """What the system refuses in the block becomes a StorageError that names the path and how to go on."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written ({error.strerror or error}): see that its folder is there and can be written to, and "
            "that the disk has space left, then go on with --resume"
        ) from None


@contextmanager
def writable(path: Path, remedy: str) -> Iterator[None]:
    """What the system refuses in the block, which writes to the path, becomes an InputError; remedy: what to do then."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write to {path} ({error.strerror or error}); {remedy}") from None


def clear_partials(folder: Path) -> None:
    """Remove what interrupted writes have left in a folder, and in those below it. Raises OSError."""
    for rest in sorted(folder.glob(f"**/*{PARTIAL}")):
        if rest.is_dir():
            shutil.rmtree(rest)
        else:
            rest.unlink(missing_ok=True)


def complete(partial: Path, path: Path) -> None:
    """Rename a file, or a folder whose files are on the disk, so that the new name lasts through a power failure.

    A file at `path`, or an empty folder, is replaced. Raises OSError.
    """
    sync(partial)
    partial.replace(path)
    with suppress(OSError):  # not all file systems sync folders
        sync(path.parent)


def link(source: Path, path: Path) -> None:
    """Give a file that nobody changes a second name; where the file system has none, copy it. Raises OSError."""
    try:
        os.link(source, path)
    except OSError:
        with atomic(path) as partial:
            shutil.copyfile(source, partial)


def sync(path: Path) -> None:
    """Bring a file's bytes, or a folder's names, to the disk. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
