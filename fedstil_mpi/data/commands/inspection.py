"""What a stream of images holds, and whether an image that somebody trains on is also searched for or searched in."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedstil_mpi.data.building.survey import pictures
from fedstil_mpi.data.images import ImageFile
from fedstil_mpi.data.pack.manifest import ROLES, Manifest, Plan, Selection
from fedstil_mpi.data.streams.base import SPLITS
from fedstil_mpi.data.streams.folder import FolderStream
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.progress import Progress, unseen

APART = (("train", "query"), ("train", "gallery"), ("warmup", "query"), ("warmup", "gallery"), ("query", "gallery"))
"""No image may be in both."""


@dataclass(frozen=True)
class Counts:
    """Of one task of a client, or of several tasks together: different people, different images, different cameras."""

    trained: int
    """People in the train split."""
    searched: int
    """People in the query split."""
    train: int
    query: int
    gallery: int
    cameras: int
    """Known cameras that took the training images and queries."""


@dataclass(frozen=True)
class Overlap:
    """Equal pixels in two splits, whichever clients and tasks they belong to."""

    splits: tuple[str, str]
    images: int
    """How many different images are in both."""
    example: tuple[str, str]
    """One of them: its source in the one split and in the other."""


def count(plan: Plan, numbers: Sequence[int]) -> Counts:
    """Of the tasks of these numbers, `client * tasks + task`, together."""
    rows = {split: _rows(plan.splits[split], numbers) for split in SPLITS}
    people, cameras = plan.manifest.person, plan.manifest.camera
    taken = cameras[np.concatenate([rows["train"], rows["query"]])]
    return Counts(
        trained=len(np.unique(people[rows["train"]])),
        searched=len(np.unique(people[rows["query"]])),
        **{split: len(rows[split]) for split in SPLITS},
        cameras=len(np.unique(taken[taken >= 0])),
    )


def overlaps(plan: Plan) -> list[Overlap]:
    """What is in two splits that should have nothing in common, over all clients and tasks."""
    words = np.ascontiguousarray(plan.manifest.pixels_sha256).view(np.uint64)
    content = np.unique(words, axis=0, return_inverse=True)[1].reshape(-1)
    rows = {split: _rows(plan.splits[split], range(plan.clients * plan.tasks)) for split in SPLITS}
    rows["warmup"] = np.flatnonzero(plan.manifest.role == ROLES.index("warmup"))
    found = []
    for one, other in APART:
        shared, here, there = np.intersect1d(content[rows[one]], content[rows[other]], return_indices=True)
        if len(shared):
            example = plan.manifest.source[rows[one][here[0]]], plan.manifest.source[rows[other][there[0]]]
            found.append(Overlap((one, other), len(shared), example))
    return found


def _rows(selection: Selection, numbers: Sequence[int]) -> np.ndarray:
    """Different rows of the manifest, ascending."""
    return np.unique(np.concatenate([selection.of(number) for number in numbers]))


def read_folder(
    root: Path, height: int, width: int, *, threads: int, progress: Progress = unseen
) -> tuple[FolderStream, Plan, list[str]]:
    """A folder stream, its plan, and the files that cannot be read, which are not in the plan.

    All files are read; what is hashed are the pixels at the given size, so that a copy is known by whatever name and in
    whatever lossless format. Raises InputError as FolderStream does.
    """
    stream = FolderStream(root, height, width)
    files: list[ImageFile] = []
    places: list[tuple[int, int, int]] = []
    for (client, task), splits in sorted(stream.files.items()):
        for role, split in enumerate(SPLITS):
            files += splits[split]
            places += [(client, task, role)] * len(splits[split])
    readable, unreadable, hashes = [], [], []
    found_in = pictures([file.path for file in files], height, width, threads)
    for number, found in enumerate(progress("reading", len(files))(found_in)):
        if isinstance(found, InputError):
            unreadable.append(str(found))
        else:
            readable.append(number)
            hashes.append(found.file_sha256 + found.pixels_sha256)
    hashed = np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 2, 32)
    clients, tasks, roles = np.array([places[number] for number in readable], np.int64).reshape(-1, 3).T
    kept = [files[number] for number in readable]
    manifest = Manifest(
        clients,
        tasks,
        roles.astype(np.uint8),
        np.array([file.person for file in kept], np.int64),
        np.array([file.camera for file in kept], np.int64),
        tuple(file.path.relative_to(root).as_posix() for file in kept),
        hashed[:, 0],
        hashed[:, 1],
    )
    selections = {split: _selection(manifest, split, stream.clients, stream.tasks) for split in SPLITS}
    return stream, Plan(stream.clients, stream.tasks, manifest, selections), unreadable


def _selection(manifest: Manifest, split: str, clients: int, tasks: int) -> Selection:
    """The rows of a split, where every task has images of its own and rows are in the order of tasks."""
    rows = np.flatnonzero(manifest.role == ROLES.index(split))
    number = manifest.client[rows] * tasks + manifest.task[rows]
    return Selection(rows, np.searchsorted(number, np.arange(clients * tasks + 1)))
