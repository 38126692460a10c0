"""Any set as folders: `<root>/<camera>/<person>/<image>`.

The folders may have any names. A person has the same name at every camera. Images end in .bmp, .jpeg, .jpg or .png.
Hidden files are ignored, and so are files beside the folders. The names give no time; a CSV file can.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from fedstil_mpi.data.files.listing import SUFFIXES, entries
from fedstil_mpi.data.readers.records import ImageRecord
from fedstil_mpi.util.errors import InputError

LAYOUT = f"images <camera>/<person>/<image>, their names ending in {', '.join(SUFFIXES)}"


def read(root: Path) -> Iterator[ImageRecord]:
    for camera in _folders(root, root):
        for person in _folders(Path(camera.path), root):
            for image in entries(Path(person.path), root, LAYOUT):
                if not _is_image(image):
                    raise InputError(f"{image.path} is no image: expected {LAYOUT}; remove it")
                source = f"{camera.name}/{person.name}/{image.name}"
                yield ImageRecord(root / source, source, person.name, camera.name, None)


def _folders(folder: Path, root: Path) -> Iterator[os.DirEntry[str]]:
    """The folders in a folder. An image among them would be left out in silence: it is refused."""
    for entry in entries(folder, root, LAYOUT):
        if _is_image(entry):
            raise InputError(f"{entry.path} is not in a person's folder: expected {LAYOUT}; move it or remove it")
        if entry.is_dir():
            yield entry


def _is_image(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(SUFFIXES) and entry.is_file()
