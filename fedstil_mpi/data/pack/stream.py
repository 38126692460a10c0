"""A stream from a pack."""

import zlib
from pathlib import Path

import numpy as np

from fedstil_mpi.data.pack.format import read
from fedstil_mpi.data.pack.manifest import ROLES, Plan
from fedstil_mpi.data.pack.pixels import copied
from fedstil_mpi.data.streams.base import SPLITS, Images, Stream, Task
from fedstil_mpi.util.errors import InputError


class PackStream(Stream):
    """Every client and task of a pack, its images in the order in which they were packed.

    What stands beside the pixels is read and checked at once. Pixels are copied, and checked too, when their task is
    asked for. Between two calls the file is closed; any number of ranks may read it at the same time.
    """

    def __init__(self, path: Path, height: int | None = None, width: int | None = None):
        """Raises InputError for a file that is no pack or not whole, or whose images have another size than asked for."""
        self._path = path
        self._contents = read(path)
        self.about = self._contents.about
        self.height, self.width = self._contents.height, self._contents.width
        self.clients, self.tasks = self._contents.plan.clients, self._contents.plan.tasks
        asked = height or self.height, width or self.width
        if asked != (self.height, self.width):
            raise InputError(
                f"{path} holds images of {self.height} x {self.width} pixels, not {asked[0]} x {asked[1]}; set "
                f"data.height to {self.height} and data.width to {self.width}, or build a pack of the other size"
            )

    def plan(self) -> Plan:
        """The stream without its pixels."""
        return self._contents.plan

    def task(self, client: int, task: int) -> Task:
        """The images of one task (0-based). Raises InputError, naming the image's source, where pixels are not as they were packed."""
        return Task(**{split: self._images(rows) for split, rows in self._rows(client, task).items()})

    def labels(self, client: int, task: int) -> dict[str, np.ndarray]:
        pids = self._contents.plan.manifest.person
        return {split: pids[rows] for split, rows in self._rows(client, task).items()}

    def cameras(self, client: int, task: int) -> dict[str, np.ndarray]:
        cameras = self._contents.plan.manifest.camera
        return {split: cameras[rows] for split, rows in self._rows(client, task).items()}

    def warmup(self) -> Images | None:
        rows = np.flatnonzero(self._contents.plan.manifest.role == ROLES.index("warmup"))
        return self._images(rows) if len(rows) else None

    def _rows(self, client: int, task: int) -> dict[str, np.ndarray]:
        """The rows of the manifest by split."""
        return {split: self._contents.plan.splits[split].of(client * self.tasks + task) for split in SPLITS}

    def _images(self, rows: np.ndarray) -> Images:
        pixels = copied(self._path, self._contents, rows)
        found = np.fromiter((zlib.crc32(image) for image in pixels), np.uint32, len(rows))
        changed = rows[found != self._contents.crc32[rows]]
        manifest = self._contents.plan.manifest
        if len(changed):
            raise InputError(
                f"{self._path} is damaged: the pixels of {len(changed)} of {len(rows)} images do not have their CRC-32, "
                f"the first is {manifest.source[changed[0]]}; copy it again or build it again"
            )
        return Images(pixels, manifest.person[rows], manifest.camera[rows])
