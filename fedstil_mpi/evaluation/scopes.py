"""Scopes: where queries are searched, and whose: those of people whom somebody trains on, or of strangers.

A scope is called as its gallery, for strangers with `strangers_` before it. Both are searched in the same galleries, as a
network of cameras would: known people are distractors for strangers, and strangers for known people.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

STRANGERS = "strangers_"


@dataclass(frozen=True)
class Scopes:
    """What is measured at an evaluation."""

    galleries: Sequence[str]
    """As `evaluation.gallery` names them."""
    trained: int = sys.maxsize
    """How many people anybody ever trains on: they have the ids below it, strangers the others."""
    strangers: Sequence[bool] = (False,)
    """Whose queries there are: known people's (False), strangers' (True)."""

    @classmethod
    def of(cls, galleries: Sequence[str], trained: int, searched: Iterable[np.ndarray]) -> "Scopes":
        """searched: the person of each query, int64 [any], of all tasks."""
        found = {strange for pids in searched for strange in np.unique(pids >= trained).tolist()}
        return cls(galleries, trained, sorted(found))

    def __iter__(self) -> Iterator[tuple[bool, str]]:
        """Whether strangers are searched, and where, of each."""
        return product(self.strangers, self.galleries)

    @property
    def names(self) -> list[str]:
        return [STRANGERS * strange + gallery for strange, gallery in self]

    def queries(self, pids: np.ndarray) -> list[np.ndarray | slice]:
        """Of those whose queries there are, which of a task's queries are theirs; pids: int64 [q]."""
        if len(self.strangers) == 1:
            return [slice(None)]
        return [np.flatnonzero((pids >= self.trained) == strange) for strange in self.strangers]

    def asked(self, people: np.ndarray) -> list[bool]:
        """Whether there is anybody to search, of each scope; people: who is searched in a task, sorted."""
        there = set() if not len(people) else {bool(person >= self.trained) for person in people[[0, -1]]}
        return [strange in there for strange, _ in self]


def headline(names: Sequence[str]) -> str:
    """The scope whose numbers are told where there is room for one: the first in the client's galleries, or else the first."""
    return next((name for name in names if gallery(name) == "client"), names[0])


def gallery(name: str) -> str:
    """Where a scope's queries are searched."""
    return name.removeprefix(STRANGERS)


def words(name: str) -> str:
    """A scope in words, for tables."""
    return gallery(name) + " (strangers)" * name.startswith(STRANGERS)
