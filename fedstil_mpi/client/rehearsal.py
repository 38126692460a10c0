"""What a client remembers: exemplars of past people, chosen by herding, and prototypes of them from other clients."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedstil_mpi.util import seeding
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


def share_out(places: int, wanted: Mapping[int, int], turns: Mapping[int, int]) -> dict[int, int]:
    """Places for each person: as even as whole numbers allow, and none left over while anyone wants more.

    wanted: person -> the most it can use. turns: who comes first, lowest first, for places that are too few for all.
    """
    if sum(wanted.values()) <= places:
        return dict(wanted)
    level, hungry = 0, len(wanted)
    for most in sorted(wanted.values()):
        if (most - level) * hungry > places:
            break
        places -= (most - level) * hungry
        level, hungry = most, hungry - 1
    level, left = level + places // hungry, places % hungry
    given = {person: most if most < level else level for person, most in wanted.items()}
    if left:
        unserved = [person for person, most in wanted.items() if most > level]
        for person in sorted(unserved, key=turns.__getitem__)[:left]:
            given[person] += 1
    return given


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

    def means(self) -> Tensor:
        """The mean representation of each person in the order of pids, [people, D]."""
        return torch.stack(
            [self.representations[self.pids == person].flatten(1).mean(0) for person in self.pids.unique()]
        )

    def state(self) -> State:
        return dict(vars(self))

    @classmethod
    def of(cls, state: State, device: torch.device) -> "Samples":
        """The samples that gave this state, on the device."""
        return cls(**{name: tensor.to(device) for name, tensor in state.items()})


class Memory:
    """The exemplars of one client: at most `size` representations, shared evenly by the people it has met.

    Every place is used as long as there are images for it: what cannot be divided goes to people drawn from the seed, so
    that a memory of 90 places keeps an image of 90 of 91 people, and the people it keeps are a fair sample of all. Past
    images are gone: what a person had to give up it does not get back before it is met again, and then its exemplars are chosen
    anew, of the images of that task alone.

    repeat: as FedSTIL's reference code, herding fills every person's quota, rounded up, with repeats.
    collide: see `recall`. quota: "seen"; "width", as the reference code's iCaRL: shared by everyone up to the largest
    person id seen, whether seen or not.
    """

    def __init__(self, size: int, *, repeat: bool = False, collide: bool = False, quota: str = "seen", seed: int = 0):
        self.size = size
        self.repeat = repeat
        self.collide = collide
        self.quota = quota
        self.seed = seed
        self.people: dict[int, int] = {}
        """All people this client has trained on, and each one's turn where places cannot be divided evenly."""
        self._exemplars: dict[int, Samples] = {}

    def share_out(self, held: Mapping[int, int], new: Mapping[int, int]) -> dict[int, int]:
        """How many exemplars each person may have, once the people of the current task are met.

        held: person -> exemplars so far; new: person of the current task -> images to choose from.
        """
        self.people |= {person: self._turn(person) for person in new if person not in self.people}
        wanted = {**held, **new}
        sharers = max(self.people) + 1 if self.quota == "width" else len(self.people)
        if self.repeat:
            return dict.fromkeys(wanted, math.ceil(self.size / sharers))
        return share_out(self.size * len(self.people) // sharers, wanted, self.people)

    def _turn(self, person: int) -> int:
        return seeding.integer(self.seed, "memory", person)

    def store(self, samples: Samples, features: Tensor) -> None:
        """Choose exemplars of the people in `samples` again, and cut the others' lists to their new shares.

        features: [n, F], in the order of `samples`.
        """
        images = Counter(sorted(samples.pids.tolist()))
        shares = self.share_out({person: len(kept) for person, kept in self._exemplars.items()}, images)
        self._exemplars = {
            person: kept[list(range(min(shares[person], len(kept))))] for person, kept in self._exemplars.items()
        }
        for person in images:
            rows = torch.nonzero(samples.pids == person)[:, 0]
            picks = herd(features[rows], shares[person], repeat=self.repeat)
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
        return {"people": list(self.people), "exemplars": exemplars}

    def restore(self, state: State, device: torch.device) -> None:
        """Take up such a state in an empty memory, on the device."""
        self.people = {person: self._turn(person) for person in state["people"]}
        self._exemplars = {int(person): Samples.of(kept, device) for person, kept in state["exemplars"].items()}


def collided_labels(pids: Tensor, indices: Tensor) -> Tensor:
    """The label each stored exemplar gets in the reference code: the person stored last under its class index."""
    latest = dict(zip(indices.tolist(), pids.tolist(), strict=True))
    return torch.tensor([latest[index] for index in indices.tolist()], dtype=torch.int64, device=pids.device)
