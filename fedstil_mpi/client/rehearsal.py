"""What a client remembers: exemplars of past people, chosen by herding, and prototypes of them from other clients."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from fedstil_mpi.util.state_tree import State


def herd(features: Tensor, quota: int, *, repeat: bool = False) -> list[int]:
    """Indices of up to `quota` rows of `features` [n, F] whose running mean stays closest to the mean of all.

    iCaRL (Rebuffi et al., CVPR 2017), algorithm 4; the first index wins a tie. `repeat`: as FedSTIL's reference code,
    a row may be picked again, and the quota is always filled.
    """
    if not len(features):
        return []
    mean = features.mean(0)
    total = torch.zeros_like(mean)
    picks: list[int] = []
    for i in range(quota if repeat else min(quota, len(features))):
        distance = (mean - (features + total) / (i + 1)).norm(dim=1)
        if not repeat and picks:
            distance[picks] = math.inf
        picks.append(int(distance.argmin()))
        total = total + features[picks[-1]]
    return picks


@dataclass
class Samples:
    """Representations with their labels; all tensors share their first axis."""

    representations: Tensor
    """float32 [n, ...]."""
    pids: Tensor
    """int64 [n]."""
    indices: Tensor
    """int64 [n]: the person's place among the sorted people of the task it was stored in."""

    def __len__(self) -> int:
        return len(self.pids)

    def __getitem__(self, index: Tensor | list[int]) -> "Samples":
        return Samples(self.representations[index], self.pids[index], self.indices[index])

    @staticmethod
    def concatenate(parts: list["Samples"]) -> "Samples":
        return Samples(
            torch.cat([p.representations for p in parts]),
            torch.cat([p.pids for p in parts]),
            torch.cat([p.indices for p in parts]),
        )

    def state(self) -> State:
        return dict(vars(self))

    @classmethod
    def of(cls, state: State, device: torch.device) -> "Samples":
        """The samples that gave this state, on the device."""
        return cls(**{name: tensor.to(device) for name, tensor in state.items()})


class Memory:
    """The exemplars of one client: at most `size` representations, shared evenly by the people it has seen.

    repeat: as FedSTIL's reference code, herding fills every person's quota, rounded up, with repeats.
    collide: see `recall`. quota: "seen"; "width", as the reference code's iCaRL: shared by everyone up to the largest
    person id seen, whether seen or not.
    """

    def __init__(self, size: int, *, repeat: bool = False, collide: bool = False, quota: str = "seen"):
        self.size = size
        self.repeat = repeat
        self.collide = collide
        self.quota = quota
        self.people: set[int] = set()
        """All people this client has trained on."""
        self._exemplars: dict[int, Samples] = {}

    def admit(self, pids: Iterable[int]) -> int:
        """Let these people share the memory from now on; returns how many exemplars each person may have."""
        self.people.update(pids)
        sharers = max(self.people) + 1 if self.quota == "width" else len(self.people)
        return math.ceil(self.size / sharers) if self.repeat else self.size // sharers

    def store(self, samples: Samples, features: Tensor) -> None:
        """Choose exemplars of the people in `samples` again, and cut the others' lists to the new quota.

        features: [n, F], in the order of `samples`.
        """
        pids = sorted(set(samples.pids.tolist()))
        quota = self.admit(pids)
        self._exemplars = {person: kept[list(range(min(quota, len(kept))))] for person, kept in self._exemplars.items()}
        for person in pids:
            rows = torch.nonzero(samples.pids == person)[:, 0]
            picks = herd(features[rows], quota, repeat=self.repeat)
            self._exemplars[person] = samples[rows[picks]]

    def recall(self, without: set[int] | None = None) -> Samples | None:
        """All exemplars in the order in which people were met, those of the people in `without` left out.

        With `collide`, labels are what the reference code trains with: it keeps one map from class index to person for
        the whole store, so that a newer person takes over the exemplars of older ones with the same index.
        """
        kept = [s for person, s in self._exemplars.items() if len(s) and person not in (without or ())]
        if not kept:
            return None
        samples = Samples.concatenate(kept)
        if self.collide:
            samples.pids = collided_labels(samples.pids, samples.indices)
        return samples

    def state(self) -> State:
        exemplars = {str(person): kept.state() for person, kept in self._exemplars.items()}
        return {"people": sorted(self.people), "exemplars": exemplars}

    def restore(self, state: State, device: torch.device) -> None:
        """Take up such a state in an empty memory, on the device."""
        self.people = set(state["people"])
        self._exemplars = {int(person): Samples.of(kept, device) for person, kept in state["exemplars"].items()}


def collided_labels(pids: Tensor, indices: Tensor) -> Tensor:
    """The label each stored exemplar gets in the reference code: the person stored last under its class index."""
    latest = dict(zip(indices.tolist(), pids.tolist(), strict=True))
    return torch.tensor([latest[index] for index in indices.tolist()], dtype=torch.int64, device=pids.device)
