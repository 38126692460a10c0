"""A stream as a folder of images: to look at, or to read with other programs."""

import re
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from fedstil_mpi.data.pack.manifest import Plan
from fedstil_mpi.data.streams.base import SPLITS, Images, Stream
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.files import complete
from fedstil_mpi.util.progress import Watch

LAST_CAMERA = 9999
"""The largest number of a camera that is read from a file's name."""
LONGEST = 120
"""Characters of a source that become part of a file's name; most file systems take names of 255 bytes."""


def write_folder(stream: Stream, root: Path, plan: Plan | None = None, watch: Watch = iter) -> None:
    """Writes root/task-<client>-<task>/<split>/<person>/c<camera>_<index>_<source>.png, which FolderStream reads.

    The index counts within the split, so no two names are equal whatever the sources are. plan: knows the sources; None:
    a name ends after the index. The camera is left out where it is not known. A split without images is an empty
    folder. The server's warm-up images are not written: such a folder has no place for them.

    Raises InputError for a root that holds something already or cannot be written; nothing is left of it then.
    """
    root = root.absolute()
    if root.is_symlink() or root.is_file() or (root.exists() and any(root.iterdir())):
        raise InputError(f"{root} is not empty; expected a new folder for the images: name another or empty it")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}.", suffix=".unfinished") as folder:
            tree = Path(folder) / "tree"
            for number in watch(range(stream.clients * stream.tasks)):
                client, task = divmod(number, stream.tasks)
                images = stream.task(client, task)
                for split in SPLITS:
                    sources = [plan.manifest.source[row] for row in plan.splits[split].of(number)] if plan else None
                    _write(getattr(images, split), sources, tree / f"task-{client}-{task}" / split)
            complete(tree, root)  # which may replace an empty folder
    except OSError as error:
        raise InputError(
            f"cannot write the images to {root} ({error.strerror or error}): expected a folder with disk space for them; free "
            "space or name another"
        ) from None


def _write(images: Images, sources: list[str] | None, folder: Path) -> None:
    folder.mkdir(parents=True)
    if images.cameras.max(initial=-1) > LAST_CAMERA:
        raise InputError(
            f"a file's name tells a camera up to {LAST_CAMERA}, but there is camera {images.cameras.max()}; keep the pack"
        )
    for person in np.unique(images.pids).tolist():
        (folder / str(person)).mkdir()
    digits = max(5, len(str(len(images))))
    for index, (pixels, person, camera) in enumerate(zip(images.pixels, images.pids, images.cameras, strict=True)):
        words = [f"c{camera}"] if camera >= 0 else []
        words += [f"{index:0{digits}d}"]
        words += [_plain(sources[index])] if sources else []
        Image.fromarray(pixels).save(folder / str(person) / f"{'_'.join(words)}.png")


def _plain(source: str) -> str:
    """The end of a source in letters, digits and hyphens, so that it is neither a path nor, `_c1_`, a camera."""
    return re.sub(r"[^A-Za-z0-9]+", "-", source)[-LONGEST:]
