"""Any stream as a pack: what is slow to decode or draw is decoded or drawn once."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedstil_mpi.data.pack.manifest import ROLES, Manifest, Plan
from fedstil_mpi.data.pack.target import check_target
from fedstil_mpi.data.pack.writer import write
from fedstil_mpi.data.streams.base import SPLITS, Images, Stream


class _Part(NamedTuple):
    """Images that are packed one after another, without their pixels."""

    client: int
    task: int
    role: str
    pids: np.ndarray
    cameras: np.ndarray


def pack_stream(
    stream: Stream,
    path: Path,
    *,
    height: int,
    width: int,
    about: Mapping[str, str],
    label: str = "stream",
    watch: Callable[[Iterable], Iterable] = iter,
) -> None:
    """Writes every image of `stream`, all height x width, as often as it is in a split: the server's, then task by task.

    A PackStream of the file gives the same tasks and warm-up images, bit for bit. The images' sources are
    <label>/task-<client>-<task>/<split>/<index> and <label>/warmup/<index>. As their client and task the manifest has
    those that have them in a split, even where another client's camera took them; hashes of original files it has none.
    `watch` may show the progress over the list of the tasks. In memory are the warm-up images and one task at a time.

    Raises InputError as `pack.writer.write` does, and for what is wrong with the stream.
    """
    check_target(path)  # before anything is decoded or drawn
    warmup = stream.warmup()
    cells = list(product(range(stream.clients), range(stream.tasks)))
    labels = sum(len(pids) for cell in cells for pids in stream.labels(*cell).values())
    parts: list[_Part] = []

    def blocks() -> Iterator[np.ndarray]:
        for client, task, role, images in _images(stream, warmup, watch(cells)):
            parts.append(_Part(client, task, role, images.pids, images.cameras))
            yield images.pixels

    def plan(hashes: np.ndarray) -> Plan:
        manifest = _manifest(parts, label, hashes)
        return Plan(stream.clients, stream.tasks, manifest, manifest.splits(stream.clients, stream.tasks))

    write(path, (labels + len(warmup or ()), height, width), blocks(), plan, about)


def _images(
    stream: Stream, warmup: Images | None, cells: Iterable[tuple[int, int]]
) -> Iterator[tuple[int, int, str, Images]]:
    """Client, task, role and images, in the order of the pack."""
    if warmup is not None:
        yield -1, -1, "warmup", warmup
    for client, number in cells:
        task = stream.task(client, number)
        for split in SPLITS:
            yield client, number, split, getattr(task, split)


def _manifest(parts: list[_Part], label: str, hashes: np.ndarray) -> Manifest:
    sizes = [len(part.pids) for part in parts]
    return Manifest(
        client=np.repeat(np.array([part.client for part in parts], np.int64), sizes),
        task=np.repeat(np.array([part.task for part in parts], np.int64), sizes),
        role=np.repeat(np.array([ROLES.index(part.role) for part in parts], np.uint8), sizes),
        person=np.concatenate([part.pids for part in parts]),
        camera=np.concatenate([part.cameras for part in parts]),
        source=tuple(f"{label}/{_place(part)}/{index}" for part in parts for index in range(len(part.pids))),
        file_sha256=np.zeros_like(hashes),
        pixels_sha256=hashes,
    )


def _place(part: _Part) -> str:
    return part.role if part.role == "warmup" else f"task-{part.client}-{part.task}/{part.role}"
