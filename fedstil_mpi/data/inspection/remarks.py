"""What to know of a stream before its figures are trusted: what was passed over, and which cameras are not known."""

from itertools import product

from fedstil_mpi.data.streams.base import Stream


def remarks(stream: Stream) -> list[str]:
    """In words, a line each; none where all is well."""
    lines = [f"passed over: {count:,} {reason}" for reason, count in stream.passed_over.items()]
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
    unknown = images = 0
    for cell in product(range(stream.clients), range(stream.tasks)):
        cameras = stream.cameras(*cell)
        if cameras is None:
            return 0, 0
        for split in ("query", "gallery"):
            unknown += int((cameras[split] < 0).sum())
            images += len(cameras[split])
    return unknown, images
