"""Which clients are there in a round, and how much of their local training they get done: drawn from the seed alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fedstil_mpi.config.schema import Participation
from fedstil_mpi.util import seeding
from fedstil_mpi.util.errors import InputError


@dataclass(frozen=True)
class Attendance:
    """When all clients take part in all rounds. Rounds count from 1."""

    seed: int
    clients: int
    total: int
    """Rounds."""
    settings: Participation
    lost: Mapping[int, int]
    """Client -> the first round without it; in no round are all of them lost."""

    @cached_property
    def joins(self) -> list[int]:
        """Client -> the first round it can take part in; that of some may lie after the last round."""
        s = self.settings
        draw = seeding.generator(self.seed, "late")
        late = draw.permutation(self.clients)[: round(s.late * self.clients)]
        first = np.ones(self.clients, dtype=np.int64)
        first[late] = draw.integers(2, s.late_until or max(2, self.total // 2), len(late), endpoint=True)
        return first.tolist()

    def present(self, round: int) -> list[int]:
        """The clients that could take part in a round, in client order; never none, for then one is drawn."""
        left = self.left(round)
        joined = [c for c in left if self.joins[c] <= round]
        s = self.settings
        there = [c for c in joined if not self._is_away(c, round)] if s.away or s.dropout else joined
        if there:
            return there
        candidates = joined or left
        return [candidates[seeding.integer(self.seed, "called", round) % len(candidates)]]

    def left(self, round: int) -> list[int]:
        """The clients that are not lost by then, in client order."""
        return [c for c in range(self.clients) if round < self.lost.get(c, math.inf)]

    def effort(self, client: int, round: int) -> float:
        """The share of its local training that a client gets done in a round."""
        s = self.settings
        return s.straggler_effort if self._happens(s.stragglers, "straggler", client, round) else 1.0

    def _is_away(self, client: int, round: int) -> bool:
        s = self.settings
        known = any(client == who and first <= round <= last for who, first, last in s.away)
        return known or self._happens(s.dropout, "dropout", client, round)

    def _happens(self, chance: float, what: str, client: int, round: int) -> bool:
        return chance > 0 and seeding.generator(self.seed, what, client, round).random() < chance


def check_away(away: Sequence[Any], clients: int) -> None:
    """Raise InputError where `participation.away` is not a list of [client, first round, last round]."""
    for absence in away:
        match absence:
            case [int(client), int(first), int(last)] if 0 <= client < clients and 1 <= first <= last:
                continue
        raise InputError(
            f"participation.away has {absence!r}; expected [client, first round, last round] with a client from 0 to "
            f"{clients - 1} and 1 <= first round <= last round"
        )
