"""What to know of a stream before its figures are trusted: what was passed over, and which cameras are not known."""

from collections.abc import Iterable
from itertools import product

import numpy as np

from fedstil_mpi.data.streams.base import Stream


def remarks(stream: Stream) -> list[str]:
    """In words, a line each; none where all is well."""
    lines = [f"passed over: {count:,} {reason}" for reason, count in stream.passed_over.items()]
    cells = list(product(range(stream.clients), range(stream.tasks)))
    if not stream.on_demand and (unsearched := sum(not len(stream.labels(*cell)["query"]) for cell in cells)):
        lines.append(f"{unsearched} of {len(cells)} tasks have no query: they are trained on, and not searched")
    unknown, images = unknown_cameras(stream)
    if unknown == images > 0:
        lines.append(
            f"the camera of none of the {images:,} queries and gallery images is known: protocol market takes none of them for "
            "junk, so that what the query's own camera saw counts as a match"
        )
    elif unknown:
        lines.append(f"the camera of {unknown:,} of {images:,} queries and gallery images is not known")
    return lines


def unknown_cameras(stream: Stream) -> tuple[int, int]:
    """Queries and gallery images whose camera is not known, of all tasks together, and how many there are of them.

    (0, 0) where only decoding would tell.
    """
    of_tasks = [stream.cameras(*cell) for cell in product(range(stream.clients), range(stream.tasks))]
    return count_unknown(cameras[split] for cameras in of_tasks if cameras for split in ("query", "gallery"))


def count_unknown(cameras: Iterable[np.ndarray]) -> tuple[int, int]:
    """How many of the images whose cameras these are, int64 [n] each, have none that is known, and how many there are."""
    found = [(int((of_images < 0).sum()), len(of_images)) for of_images in cameras]
    return sum(unknown for unknown, _ in found), sum(images for _, images in found)
