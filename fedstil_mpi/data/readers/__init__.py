"""Readers of re-identification sets, one module each: who is seen by which camera in which image.

A known set is read with all its splits, as one pool of images: which images are for training and which for testing
is decided later. Files of other names than the set's are passed over; image files among them are counted, with the reason.
Each folder of a set's layout has to be there, so that an incomplete copy does not pass for the set; an empty folder says
that its images are left out on purpose. Links that lead out of the root are passed over unless they are to be followed. A
part of a set, and any other set, is read as `folder` or `csv`, or by a module of the user's own that has what `Reader` says.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from fedstil_mpi.data.files.listing import Tree
from fedstil_mpi.data.readers import csv_table, cuhk03, folder, msmt17, named, prid2011
from fedstil_mpi.data.readers.records import ImageRecord
from fedstil_mpi.util import plugins
from fedstil_mpi.util.errors import InputError, did_you_mean

KEY = "--set"


class Reader(Protocol):
    """What the module of a set has."""

    @property
    def LAYOUT(self) -> str:  # noqa: N802
        """What is expected at the root, in words, for messages."""

    def read(self, tree: Tree) -> Iterator[ImageRecord]:
        """The set's images in any order; what is passed over is counted in the tree. Raises InputError for another layout.

        `tree` can be used as the path of the set's root; `tree.root` is that path.
        """


class Found(NamedTuple):
    """What there is of a set."""

    records: list[ImageRecord]
    """Sorted by source."""
    passed_over: Mapping[str, int]
    """Reason -> how many files, or folders as a whole."""


READERS: Mapping[str, Reader] = {
    "csv": csv_table,
    "cuhk03": cuhk03,
    "folder": folder,
    "msmt17": msmt17,
    "prid2011": prid2011,
    **named.SETS,
}


def names() -> tuple[str, ...]:
    """All built-in readers, sorted."""
    return tuple(sorted(READERS))


def check_name(name: str) -> None:
    """Raise InputError for a set that is not known, with a suggestion, or that must not be used."""
    known = ", ".join(names())
    if "duke" in plugins.label(name).lower():  # and the sets made of it
        raise InputError(
            f"{name} is not read: its authors withdrew DukeMTMC in 2019, since the people filmed had not consented; "
            f"use another set; there are {known}"
        )
    if plugins.is_plugin(name):
        plugins.check(KEY, name)
    elif name not in READERS:
        raise InputError(
            f"unknown set {name!r}; {did_you_mean(name.lower(), names())}there are {known}, or give the path of a .py file"
        )


def read(name: str, root: Path, follow_links: bool = False) -> Found:
    """The set's images, and what was passed over. Image files are listed, not opened.

    Raises InputError for a name as `check_name` does, for a root that is missing or has another layout, and for one
    without anybody.
    """
    check_name(name)
    reader: Reader = plugins.load(KEY, name, ("LAYOUT", "read")) if plugins.is_plugin(name) else READERS[name]
    if not (os.path.exists(root) or os.path.isfile(root.parent)):  # in a MATLAB file
        raise InputError(f"{root} does not exist: expected {reader.LAYOUT}; correct the path")
    tree = Tree(root, follow_links)
    found = sorted(reader.read(tree), key=lambda record: record.source)
    if not found:
        others = "".join(f"; {count:,} {reason}" for reason, count in tree.passed_over.items())
        raise InputError(f"{root} has nobody of the set {name}{others}: expected {reader.LAYOUT}; check the path")
    for record in found:
        try:
            record.source.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{record.source!r} in {root}: expected a name in UTF-8; rename it") from error
    return Found(found, tree.passed_over)
