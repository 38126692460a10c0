"""Any set as folders: `<root>/<camera>/<person>/<image>`.

The folders may have any names but those of splits. A person has the same name at every camera. Images end in .bmp, .jpeg,
.jpg, .png or .webp. Files beside the folders are ignored. The names give no time; a CSV file can.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from fedstil_mpi.data.files.listing import SUFFIXES, Tree, is_image, looks_like_image
from fedstil_mpi.data.readers.records import ImageRecord
from fedstil_mpi.util.errors import InputError

LAYOUT = f"images <camera>/<person>/<image>, their names ending in {', '.join(SUFFIXES)}"
SPLITS = {"train", "training", "trainval", "val", "valid", "validation", "test", "testing", "query", "probe", "gallery"}


def read(tree: Tree) -> Iterator[ImageRecord]:
    cameras = _folders(tree, tree.root)
    splits = [camera.name for camera in cameras if camera.name.lower().removeprefix("bounding_box_") in SPLITS]
    if splits[1:]:
        raise InputError(
            f"{tree.root} has the folders {' and '.join(splits)}: expected cameras, {LAYOUT}, not splits, which are made later; "
            "sort the images by camera, list them in a CSV file (csv), or name the set if it is one of the others"
        )
    for camera in cameras:
        for person in _folders(tree, Path(camera.path)):
            for image in tree.entries(Path(person.path), LAYOUT):
                if not is_image(image):
                    raise InputError(f"{image.path} is no image: expected {LAYOUT}; move it elsewhere")
                source = f"{camera.name}/{person.name}/{image.name}"
                yield ImageRecord(tree / source, source, person.name, camera.name, None)


def _folders(tree: Tree, folder: Path) -> list[os.DirEntry[str]]:
    """The folders in a folder. An image among them would be left out in silence: it is refused."""
    found = tree.entries(folder, LAYOUT)
    for entry in found:
        if looks_like_image(entry.name) and entry.is_file():
            raise InputError(f"{entry.path} is not in a person's folder: expected {LAYOUT}; move it")
    return [entry for entry in found if entry.is_dir()]
