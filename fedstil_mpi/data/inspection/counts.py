"""How much a stream of images holds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedstil_mpi.data.pack.manifest import Plan
from fedstil_mpi.data.streams.base import SPLITS


@dataclass(frozen=True)
class Counts:
    """Different people, images and cameras of one task of a client, or of several tasks together."""

    trained: int
    """People in the train split."""
    searched: int
    """People in the query split."""
    train: int
    query: int
    gallery: int
    cameras: int
    """Known cameras that took the training images and queries."""


def count(plan: Plan, numbers: Sequence[int]) -> Counts:
    """What the tasks of these numbers, `client * tasks + task`, hold together."""
    rows = {split: plan.splits[split].rows_of(numbers) for split in SPLITS}
    people, cameras = plan.manifest.person, plan.manifest.camera
    taken = cameras[np.concatenate([rows["train"], rows["query"]])]
    return Counts(
        trained=len(np.unique(people[rows["train"]])),
        searched=len(np.unique(people[rows["query"]])),
        **{split: len(rows[split]) for split in SPLITS},
        cameras=len(np.unique(taken[taken >= 0])),
    )
