"""A folder of images as a plan, so that it is counted and compared as a pack is."""

from itertools import product
from pathlib import Path

import numpy as np

from fedstil_mpi.data.files.hashed import read_hashed
from fedstil_mpi.data.pack.manifest import Manifest, Plan
from fedstil_mpi.data.streams.base import SPLITS
from fedstil_mpi.data.streams.folder import FolderStream
from fedstil_mpi.data.streams.image_files import ImageFile
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.progress import Progress, unseen


def read_folder(
    root: Path,
    height: int,
    width: int,
    *,
    threads: int,
    progress: Progress = unseen,
    camera_pattern: str | None = None,
    follow_links: bool = False,
) -> tuple[FolderStream, Plan, list[str]]:
    """A folder stream, its plan, and the files that cannot be read, which are not in the plan.

    All files are read; what is hashed are the pixels at the given size, so that a copy is known by whatever name and in
    whatever lossless format. Raises InputError as FolderStream does.
    """
    stream = FolderStream(root, height, width, camera_pattern=camera_pattern, follow_links=follow_links)
    files: list[ImageFile] = []
    places: list[tuple[int, int, int]] = []
    for client, task in product(range(stream.clients), range(stream.tasks)):
        by_split = stream.files(client, task)
        for role, split in enumerate(SPLITS):
            files += by_split[split]
            places += [(client, task, role)] * len(by_split[split])
    readable, unreadable, hashes = [], [], []
    images = read_hashed([file.path for file in files], height, width, threads)
    for number, found in enumerate(progress("reading", len(files))(images)):
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
    splits = manifest.splits(stream.clients, stream.tasks)
    return stream, Plan(stream.clients, stream.tasks, manifest, splits), unreadable
