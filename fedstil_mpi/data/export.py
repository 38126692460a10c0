"""A stream as a folder of images: to look at, or to read with other programs."""

from pathlib import Path

from fedstil_mpi.data.stream import SPLITS, Stream
from fedstil_mpi.errors import InputError


def write_folder(stream: Stream, root: Path) -> None:
    """Writes root/task-<client>-<task>/<split>/<person>/c<camera>_<index>.png, the index counting within the split.

    A split without images is an empty folder. Raises InputError for a root that holds something already.
    """
    from PIL import Image

    if root.exists() and any(root.iterdir()):
        raise InputError(f"{root} is not empty; expected a new folder for the images: name another or empty it")
    for client in range(stream.clients):
        for number in range(stream.tasks):
            task = stream.task(client, number)
            for split in SPLITS:
                images = getattr(task, split)
                folder = root / f"task-{client}-{number}" / split
                folder.mkdir(parents=True)
                for index, (pixels, person, camera) in enumerate(
                    zip(images.pixels, images.persons, images.cameras, strict=True)
                ):
                    (folder / str(person)).mkdir(exist_ok=True)
                    Image.fromarray(pixels).save(folder / str(person) / f"c{camera}_{index:05d}.png")
