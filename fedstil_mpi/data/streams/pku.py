"""PKU-Reid as a stream: a small real data set in which both cameras see everyone.

The release is one folder of files `ddd_dd_d.png`: person, camera, orientation. Ma, Liu, Hu, Wang, Sun: Orientation driven bag
of appearances for person re-identification, 2016.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fedstil_mpi.data.files.images import contents
from fedstil_mpi.data.files.listing import Tree
from fedstil_mpi.data.readers.named import PKU_NAME
from fedstil_mpi.data.readers.records import images
from fedstil_mpi.data.streams.image_files import FileStream, ImageFile
from fedstil_mpi.util import seeding
from fedstil_mpi.util.errors import InputError

Shots = dict[tuple[int, int], list[ImageFile]]
"""(camera, person) -> different images, sorted by name."""


class PkuStream(FileStream):
    """Four clients: each of the two cameras is split by identity.

    People are sorted by number and cut into a first and a second half (the first has one more of an odd number).
    Client 0 is camera 1 with the first half, client 1 camera 1 with the second half, clients 2 and 3 are camera 2 with
    the same halves. Clients 0 and 2 are *sister cameras*, they see the same people, and so are 1 and 3.

    The people of a half are put in an order drawn from the seed and cut into tasks whose sizes differ by at most one.
    The sister camera sees them half a task later: who is number p in the first camera's order is number p + shift in
    the second one's, shift being half a task's people, rounded down; the last `shift` people come round to the front.

    Of a person's images at a camera, `train_images` drawn from the seed are for training; the others are held out. An
    image that is there twice, under two names (the release has one such pair), counts once, else its copy could be on
    the other side. Queries are the held-out images of the task's people. The gallery is the held-out images that the
    *other* camera has of everyone that this camera sees in that task, in both halves. So no image that any client
    trains on is ever a query or in a gallery.
    """

    clients = 4

    def __init__(
        self, root: Path, *, height: int, width: int, seed: int, tasks: int = 6, train_images: int = 5
    ) -> None:
        """Lists the folder and looks for duplicates; images are decoded when their task is asked for.

        Files of other names are ignored. Raises InputError for a folder without such files, other than two cameras,
        fewer than two people a task and client, or a person who has not more than `train_images` images at each camera.
        """
        tree = Tree(root)
        shots = _scan(tree)
        self.passed_over = tree.passed_over
        self._cameras = sorted({camera for camera, _ in shots})
        people = sorted({person for _, person in shots})
        _check(root, shots, self._cameras, people, tasks, train_images)
        self.tasks = tasks
        self.size = height, width
        self._train: Shots = {}
        self._held_out: Shots = {}
        for key, files in shots.items():
            drawn = seeding.generator(seed, "pku", "images", *key).permutation(len(files))
            self._train[key] = [files[i] for i in sorted(drawn[:train_images])]
            self._held_out[key] = [files[i] for i in sorted(drawn[train_images:])]
        first = [
            seeding.generator(seed, "pku", "people", half).permutation(members)
            for half, members in enumerate(np.array_split(np.array(people, np.int64), 2))
        ]
        second = [np.roll(order, len(order) // tasks // 2) for order in first]
        self._people = [[np.sort(block) for block in np.array_split(order, tasks)] for order in first + second]

    def files(self, client: int, task: int) -> dict[str, list[ImageFile]]:
        camera, other = self._cameras if client < 2 else reversed(self._cameras)
        neighbour = client ^ 1  # the client with the other half of the people at this camera
        own = self._people[client][task]
        seen = np.union1d(own, self._people[neighbour][task])
        return {
            "train": _of(self._train, camera, own),
            "query": _of(self._held_out, camera, own),
            "gallery": _of(self._held_out, other, seen),
        }


def _scan(tree: Tree) -> Shots:
    shots: Shots = {}
    for _, source, match in images(tree, (".",), PKU_NAME, "the folder of PKU-Reid's images"):
        person, camera = int(match["person"]), int(match["camera"])
        shots.setdefault((camera, person), []).append(ImageFile(tree / source, person, camera))
    if not shots:
        raise InputError(
            f"{tree.root} has no image of PKU-Reid: expected files <person>_<camera>_<frame>.png such as 001_01_1.png; "
            "correct the path"
        )
    return {key: _without_duplicates(files) for key, files in shots.items()}


def _without_duplicates(files: list[ImageFile]) -> list[ImageFile]:
    """The first file of each content."""
    first: dict[bytes, ImageFile] = {}
    for file in files:
        first.setdefault(contents(file.path), file)
    return list(first.values())


def _check(root: Path, shots: Shots, cameras: list[int], people: list[int], tasks: int, train_images: int) -> None:
    if tasks < 1 or train_images < 1:
        raise InputError(
            f"PKU-Reid with {tasks} tasks and {train_images} train images a person: both must be at least 1"
        )
    if len(cameras) != 2:
        raise InputError(
            f"{root} has cameras {cameras}: PKU-Reid has two; complete the folder or move the others' files elsewhere"
        )
    # A person that only one camera saw is not left out in silence: it means an incomplete copy of the data set.
    for camera in cameras:
        for person in people:
            count = len(shots.get((camera, person), []))
            if count <= train_images:
                raise InputError(
                    f"{root} has {count} different images of person {person} at camera {camera}: expected more than "
                    f"the {train_images} train images; complete the folder, leave that person out, or train on fewer"
                )
    if len(people) < 4 * tasks:
        raise InputError(
            f"{root} has {len(people)} people for {tasks} tasks: expected at least {4 * tasks}, two a task and client; "
            "ask for fewer tasks or add people"
        )


def _of(shots: Shots, camera: int, people: Iterable[int]) -> list[ImageFile]:
    return [file for person in people for file in shots[camera, int(person)]]
