"""The images of all sets in one table, with numbers instead of names."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fedstil_mpi.data.readers.records import ImageRecord


@dataclass(frozen=True)
class Pool:
    """One row an image, by set, then source. Nothing is shared between sets: each brings its own people and cameras."""

    sets: np.ndarray
    """int64 [n], the set's number in the order in which the sets were given."""
    pids: np.ndarray
    """int64 [n], numbered over all sets: by set, then by key in natural order (2 before 10)."""
    cameras: np.ndarray
    """int64 [n], numbered in the same way."""
    times: np.ndarray
    """int64 [n], comparable within one camera only; -1 where unknown."""
    sources: tuple[str, ...]
    """[n], "<label of the set>/<path below the set's root>"."""

    def __len__(self) -> int:
        return len(self.pids)

    def label(self, row: int) -> str:
        """The label of the set that the image is from."""
        return self.sources[row].partition("/")[0]


def pool(sets: Mapping[str, Sequence["ImageRecord"]]) -> Pool:
    """Label -> image records, in one table. The order within a set does not matter, that of the sets does."""
    rows = [
        (number, label, record)
        for number, (label, records) in enumerate(sets.items())
        for record in sorted(records, key=lambda record: record.source)
    ]
    return Pool(
        sets=np.array([number for number, _, _ in rows], np.int64),
        pids=_numbers([(number, record.person) for number, _, record in rows]),
        cameras=_numbers([(number, record.camera) for number, _, record in rows]),
        times=np.array([-1 if record.time is None else record.time for _, _, record in rows], np.int64),
        sources=tuple(f"{label}/{record.source}" for _, label, record in rows),
    )


def _numbers(keys: list[tuple[int, str]]) -> np.ndarray:
    """int64 [n]: the place of each row's (set, key) among the different ones in natural order."""
    different = sorted(set(keys), key=lambda entry: (entry[0], _natural(entry[1])))
    number = {entry: place for place, entry in enumerate(different)}
    return np.array([number[entry] for entry in keys], np.int64)


def _natural(key: str) -> tuple[list[str | tuple[int, str]], str]:
    """Sorts digits by their value. The key itself decides between "7" and "07"."""
    parts = re.split(r"([0-9]+)", key)  # text and digits by turns, so that like is compared with like
    return [_value(part) if place % 2 else part for place, part in enumerate(parts)], key


def _value(digits: str) -> tuple[int, str]:
    """In the order of the numbers that they are, which may be longer than Python reads."""
    significant = digits.lstrip("0")
    return len(significant), significant
