"""Images in two splits that should have none in common, such as training images that are queries too."""

from dataclasses import dataclass

import numpy as np

from fedstil_mpi.data.pack.manifest import ROLES, Plan
from fedstil_mpi.data.streams.base import SPLITS

APART = (("train", "query"), ("train", "gallery"), ("warmup", "query"), ("warmup", "gallery"), ("query", "gallery"))
"""No image may be in both."""


@dataclass(frozen=True)
class Overlap:
    """Equal pixels in two splits, whichever clients and tasks they belong to."""

    splits: tuple[str, str]
    images: int
    """How many different images are in both."""
    example: tuple[str, str]
    """One of them: its source in the one split and in the other."""


def overlaps(plan: Plan) -> list[Overlap]:
    """What is in two splits that should have nothing in common, over all clients and tasks."""
    words = np.ascontiguousarray(plan.manifest.pixels_sha256).view(np.uint64)
    content = np.unique(words, axis=0, return_inverse=True)[1].reshape(-1)
    rows = {split: np.unique(plan.splits[split].rows) for split in SPLITS}
    rows["warmup"] = np.flatnonzero(plan.manifest.role == ROLES.index("warmup"))
    found = []
    for one, other in APART:
        shared, here, there = np.intersect1d(content[rows[one]], content[rows[other]], return_indices=True)
        if len(shared):
            example = plan.manifest.source[rows[one][here[0]]], plan.manifest.source[rows[other][there[0]]]
            found.append(Overlap((one, other), len(shared), example))
    return found
