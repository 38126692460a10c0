"""Checks whether every pixel of a pack is what was packed."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from fedstil_mpi.data.pack.format import read
from fedstil_mpi.data.pack.pixels import copied
from fedstil_mpi.util.errors import InputError

BLOCK = 256
"""Images in memory at a time."""
NAMED = 10
"""How many sources an error names at most."""


def verify(path: Path, watch: Callable[[Iterable], Iterable] = iter) -> int:
    """Hashes all pixels again and returns how many images there are; `watch` may show the progress over the blocks.

    Raises InputError for a file that is no pack, and with the sources of the images whose SHA-256 is not the manifest's.
    """
    contents = read(path)
    manifest = contents.plan.manifest
    changed = []
    for start in watch(range(0, len(manifest), BLOCK)):
        rows = np.arange(start, min(start + BLOCK, len(manifest)))
        for row, image in zip(rows, copied(path, contents, rows), strict=True):
            if hashlib.sha256(image).digest() != manifest.pixels_sha256[row].tobytes():
                changed.append(manifest.source[row])
    if changed:
        others = f" and {len(changed) - NAMED} others" if len(changed) > NAMED else ""
        raise InputError(
            f"{path} is damaged: {len(changed)} of {len(manifest)} images do not have the SHA-256 of their pixels: "
            f"{', '.join(changed[:NAMED])}{others}; copy it again or build it again"
        )
    return len(manifest)
