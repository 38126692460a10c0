"""What a planned run would run out of first, if all its ranks were on this host."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fedstil_mpi.planning.forecast import Forecast
from fedstil_mpi.util.machine import free_memory


class Need(NamedTuple):
    what: str
    bytes: int
    free: int


def needs(forecast: Forecast, libraries: int, output: Path) -> list[Need]:
    """libraries: bytes of a process that has done nothing yet; output: where run folders are."""
    hosts = [footprint.host() + libraries for footprint in forecast.footprints]
    of_ranks = f"memory of all {len(hosts)} ranks (the largest {max(hosts) / 1e9:.1f} GB)"
    memory = free_memory()
    found = [] if memory is None else [Need(of_ranks, sum(hosts), memory)]
    disks = [
        ("checkpoints", output, forecast.checkpoints),
        ("clients that sit rounds out", Path(tempfile.gettempdir()), forecast.away),
    ]
    return found + [Need(f"disk for {what} in {folder}", size, _space(folder)) for what, folder, size in disks if size]


def line(needs: Sequence[Need]) -> str:
    """Which of them is nearest to its limit, or farthest above it."""
    first = max(needs, key=lambda need: need.bytes / max(need.free, 1))
    sizes = f"{first.what}: {first.bytes / 1e9:.1f} GB of {first.free / 1e9:.1f} GB free here"
    if first.bytes > first.free:
        return f"warning: too large for this host: {sizes}"
    return f"first to run out on this host: {sizes}"


def _space(folder: Path) -> int:
    """Bytes free where the folder is, or will be."""
    return shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.exists())).free
