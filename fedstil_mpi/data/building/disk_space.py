"""Whether a new pack can be written: checked before the work begins."""

import shutil
from pathlib import Path

from fedstil_mpi.data.pack import check_target
from fedstil_mpi.data.pack.writer import BESIDE_PIXELS
from fedstil_mpi.util.errors import InputError


def make_folder(out: Path) -> None:
    """Makes the folder of a new pack. Raises InputError where the pack exists already or cannot be written."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {out.parent} ({error.strerror}); choose another --out") from None
    check_target(out)


def check_disk_space(out: Path, *, read: int, stored: int, height: int, width: int) -> None:
    """Raises InputError where the disk has no space for so many images in a scratch file and in the pack."""
    needed = (read + stored) * height * width * 3 + stored * BESIDE_PIXELS
    free = shutil.disk_usage(out.parent).free
    if needed > free:
        raise InputError(
            f"{out.parent} has {free / 1e9:.1f} GB free, but {stored} images of {height}x{width} need "
            f"{needed / 1e9:.1f} GB while the pack is built; free some, choose another --out, or a smaller size"
        )
