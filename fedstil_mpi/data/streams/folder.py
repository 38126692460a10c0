"""A stream from image folders: `root/task-<client>-<task>/{train,query,gallery}/<person>/<image>`."""

import re
from collections.abc import Iterator
from pathlib import Path

from fedstil_mpi.data.files.listing import SUFFIXES, Tree, is_image
from fedstil_mpi.data.streams.base import SPLITS
from fedstil_mpi.data.streams.cameras import cameras_of
from fedstil_mpi.data.streams.image_files import FileStream, ImageFile
from fedstil_mpi.util.errors import InputError

# At most 18 digits, so that every number fits an int64.
TASK_FOLDER = re.compile(r"task-([0-9]{1,18})-([0-9]{1,18})")
PERSON_FOLDER = re.compile(r"[0-9]{1,18}")


class FolderStream(FileStream):
    """Every client and task of a folder tree, clients and tasks numbered from 0 without gaps.

    The tree is listed and checked at once; images are decoded when their task is asked for. Images come in order of
    person (as a number), then file name. What is hidden, left by other programs or leads out of the root is passed over and
    counted, and so are images and folders beside the task folders. A query or gallery folder may be empty. The splits are taken
    as they are: that no image is in two of them is up to whoever made the folders.
    """

    def __init__(
        self,
        root: Path,
        height: int,
        width: int,
        *,
        camera_pattern: str | None = None,
        follow_links: bool = False,
    ) -> None:
        """camera_pattern: see `cameras_of`; follow_links: also those that lead out of the root.

        Raises InputError, naming the folder or file, for a tree that does not have this layout.
        """
        self.size = height, width
        tree = Tree(root, follow_links)
        folders = _task_folders(tree)
        self.clients = 1 + max(client for client, _ in folders)
        self.tasks = 1 + max(task for _, task in folders)
        _refuse_gaps(root, folders, self.clients, self.tasks)
        found = [
            (key, split, person, f"{folder.name}/{split}/{path}")
            for key, folder in folders.items()
            for split in SPLITS
            for person, path in _scan(tree, folder / split)
        ]
        paths = [path for *_, path in found]
        self._files: dict[tuple[int, int], dict[str, list[ImageFile]]] = {
            key: {split: [] for split in SPLITS} for key in folders
        }
        for (key, split, person, path), camera in zip(found, cameras_of(root, paths, camera_pattern), strict=True):
            self._files[key][split].append(ImageFile(root / path, person, camera))
        for key, splits in self._files.items():
            if not splits["train"]:
                raise InputError(f"{folders[key] / 'train'} has no images: a task needs some to train on; add them")
        self.passed_over = tree.passed_over

    def files(self, client: int, task: int) -> dict[str, list[ImageFile]]:
        return self._files[client, task]


def _task_folders(tree: Tree) -> dict[tuple[int, int], Path]:
    """(client, task) -> folder."""
    folders: dict[tuple[int, int], Path] = {}
    for entry in tree.entries(tree.root, "the data set's folders task-<client>-<task>"):
        if not entry.name.startswith("task-"):
            tree.count_beside(entry)
            continue
        match = TASK_FOLDER.fullmatch(entry.name)
        if not match or not entry.is_dir():
            raise InputError(
                f"{entry.path} is no task: expected a folder task-<client>-<task> with two numbers; rename it or move it elsewhere"
            )
        key = int(match[1]), int(match[2])
        if key in folders:
            raise InputError(
                f"{folders[key]} and {entry.path} are the same client and task: move one of them elsewhere"
            )
        folders[key] = Path(entry.path)
    if not folders:
        raise InputError(
            f"{tree.root} has no task folders: expected task-0-0, task-0-1, ...; check the path, or make a pack of images that lie "
            "otherwise: python -m fedstil_mpi.data build"
        )
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


def _scan(tree: Tree, split: Path) -> Iterator[tuple[int, str]]:
    """(person, path below the split) of its images, by person and name."""
    pids = tree.entries(split, "one folder a person (each task has train, query and gallery)")
    for person in pids:
        if not PERSON_FOLDER.fullmatch(person.name) or not person.is_dir():
            raise InputError(
                f"{person.path} is no person: expected a folder named by a number; rename it or move it elsewhere"
            )
    for person in sorted(pids, key=lambda entry: int(entry.name)):
        for image in tree.entries(Path(person.path), "a person's images"):
            if not is_image(image):
                raise InputError(
                    f"{image.path} is no image: expected files in {', '.join(SUFFIXES)}; move it elsewhere"
                )
            yield int(person.name), f"{person.name}/{image.name}"
