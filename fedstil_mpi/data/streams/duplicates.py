"""Images that several galleries have in common: joined, the galleries show each of them once."""

import hashlib
from collections.abc import Sequence

import numpy as np

from fedstil_mpi.data.streams.base import Images


def first_shown(galleries: Sequence[Images]) -> list[np.ndarray]:
    """A bool [n] for each gallery: the images that none of the galleries before it has.

    Two images are the same if their pixels, person and camera are. Duplicates within one gallery stay, so that a single
    gallery is left as it is.
    """
    seen: set[bytes] = set()
    shown = []
    for images in galleries:
        keys = [_key(images, row) for row in range(len(images))]
        shown.append(np.array([key not in seen for key in keys], bool))
        seen.update(keys)
    return shown


def _key(images: Images, row: int) -> bytes:
    digest = hashlib.sha256(images.pixels[row].tobytes())
    digest.update(np.array([images.pids[row], images.cameras[row]]).tobytes())
    return digest.digest()
