"""A stream from image folders: `root/task-<client>-<task>/{train,query,gallery}/<person>/<image>`."""

import re
from pathlib import Path

from fedstil_mpi.data.files.listing import SUFFIXES, entries
from fedstil_mpi.data.streams.base import SPLITS
from fedstil_mpi.data.streams.image_files import FileStream, ImageFile
from fedstil_mpi.util.errors import InputError

# At most 18 digits, so that every number fits an int64.
TASK_FOLDER = re.compile(r"task-([0-9]{1,18})-([0-9]{1,18})")
PERSON_FOLDER = re.compile(r"[0-9]{1,18}")
CAMERA = re.compile(r"(?:^|_)c([0-9]{1,4})(?:s[0-9]+)?_")


def camera_of(name: str) -> int:
    """The camera in an image's name, `c<camera>` between underscores with or without a sequence; -1 if it has none.

    `0002_c1s1_000451_03.jpg` -> 1, `0001_c12_0001.jpg` -> 12, `c3_00012.png` -> 3, `0001.jpg` -> -1.
    """
    match = CAMERA.search(name)
    return int(match[1]) if match else -1


class FolderStream(FileStream):
    """Every client and task of a folder tree, clients and tasks numbered from 0 without gaps.

    The tree is listed and checked at once; images are decoded when their task is asked for. Images come in order of
    person (as a number), then file name. Hidden files are ignored, and so is what stands beside the task folders. A
    query or gallery folder may be empty. The splits are taken as they are: that no image is in two of them is up to
    whoever made the folders.
    """

    def __init__(self, root: Path, height: int, width: int) -> None:
        """Raises InputError, naming the folder or file, for a tree that does not have this layout."""
        self.size = height, width
        folders = _task_folders(root)
        self.clients = 1 + max(client for client, _ in folders)
        self.tasks = 1 + max(task for _, task in folders)
        _refuse_gaps(root, folders, self.clients, self.tasks)
        self._files = {key: {split: _scan(folder / split, root) for split in SPLITS} for key, folder in folders.items()}
        for key, splits in self._files.items():
            if not splits["train"]:
                raise InputError(f"{folders[key] / 'train'} has no images: a task needs some to train on; add them")

    def files(self, client: int, task: int) -> dict[str, list[ImageFile]]:
        return self._files[client, task]


def _task_folders(root: Path) -> dict[tuple[int, int], Path]:
    """(client, task) -> folder."""
    folders: dict[tuple[int, int], Path] = {}
    for entry in entries(root, root, "the data set's folders task-<client>-<task>"):
        if not entry.name.startswith("task-"):
            continue
        match = TASK_FOLDER.fullmatch(entry.name)
        if not match or not entry.is_dir():
            raise InputError(
                f"{entry.path} is no task: expected a folder task-<client>-<task> with two numbers; rename or remove it"
            )
        key = int(match[1]), int(match[2])
        if key in folders:
            raise InputError(f"{folders[key]} and {entry.path} are the same client and task: remove one of them")
        folders[key] = Path(entry.path)
    if not folders:
        raise InputError(f"{root} has no task folders: expected task-0-0, task-0-1, ...; check the path")
    return folders


def _refuse_gaps(root: Path, folders: dict[tuple[int, int], Path], clients: int, tasks: int) -> None:
    """Every client must have every task."""
    for client in range(clients):
        for task in range(tasks):
            if (client, task) not in folders:
                raise InputError(
                    f"{root} has {len(folders)} task folders, but no task-{client}-{task}: expected tasks 0 to "
                    f"{tasks - 1} for each of the clients 0 to {clients - 1}; add the folder, or number both from 0"
                )


def _scan(split: Path, root: Path) -> list[ImageFile]:
    """The images of one split, by person and name."""
    pids = entries(split, root, "one folder a person (each task has train, query and gallery)")
    for person in pids:
        if not PERSON_FOLDER.fullmatch(person.name) or not person.is_dir():
            raise InputError(f"{person.path} is no person: expected a folder named by a number; rename or remove it")
    files = []
    for person in sorted(pids, key=lambda entry: int(entry.name)):
        for image in entries(Path(person.path), root, "a person's images"):
            if not image.name.lower().endswith(SUFFIXES) or not image.is_file():
                raise InputError(f"{image.path} is no image: expected files in {', '.join(SUFFIXES)}; remove it")
            files.append(ImageFile(Path(image.path), int(person.name), camera_of(image.name)))
    return files
