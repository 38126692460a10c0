"""Which camera took an image: as a table beside the images says, or a pattern, or else its name."""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from fedstil_mpi.data.files.table import rows
from fedstil_mpi.util.errors import InputError

TABLE = "cameras.csv"
COLUMNS = ("path", "camera")

STYLES = (
    re.compile(r"[0-9]{4}_[0-9]{3}_([0-9]{2})_[0-9]{4}(?:morning|noon|afternoon)_.+"),  # MSMT17
    re.compile(r"([1-9])_[0-9]{3,4}_([12])_[0-9]{2}"),  # CUHK03: a pair of cameras, and which of them
    re.compile(r"[0-9]{4}C([0-9]{1,2})T[0-9]{4}F[0-9]+"),  # MARS
    re.compile(r"(?:.*?[_. ])?(?:c|cam(?:era)?[-_ ]?)([0-9]{1,4})(?:[_. ]?s[0-9]+)?(?:[_. ].*)?", re.IGNORECASE),
)
"""Names without their suffix as whole; the groups are the camera."""


def camera_of(name: str) -> int:
    """The camera in an image's name; -1 where it has none.

    c or cam or camera and up to four digits, with or without a sequence, between underscores, dots or spaces:
    `0002_c1s1_000451_03.jpg` -> 1, `0001_C12_0001.jpg` -> 12, `cam03_00012.png` -> 3; longer numbers count something else.
    MSMT17's `0000_000_01_0303morning_0008_0.jpg` -> 1, CUHK03's `5_001_2_06.png` -> 52, MARS's `0001C6T0001F001.jpg` -> 6.
    """
    stem = name.rpartition("/")[2].rpartition(".")[0]
    for style in STYLES:
        if match := style.fullmatch(stem):
            return int("".join(match.groups()))
    return -1


def cameras_of(root: Path, paths: Sequence[str], pattern: str | None = None) -> list[int]:
    """The camera of each image, given by its path below the root, with `/`; -1 where unknown.

    root/cameras.csv with the columns path and camera decides, where it is there; else `pattern`, a regular expression with a
    group `camera`, searched in the path; else the name. Cameras that are not all whole numbers are numbered in the order of
    their names. Raises InputError for a table or a pattern that cannot be used.
    """
    table = root / TABLE
    if table.exists():
        if pattern is not None:
            raise InputError(
                f"{table} and data.camera_pattern both say which camera took an image; leave one of them out"
            )
        listed = _listed(table, paths)
        return _numbers([listed.get(path) for path in paths])
    if pattern is None:
        return [camera_of(path) for path in paths]
    expression = check_pattern(pattern)
    return _numbers([match["camera"] if (match := expression.search(path)) else None for path in paths])


def check_pattern(pattern: str) -> re.Pattern[str]:
    """Raises InputError for what is no regular expression with a group `camera`."""
    try:
        expression = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise InputError(f"data.camera_pattern = {pattern!r} is no regular expression: {error}; correct it") from error
    if "camera" not in expression.groupindex:
        raise InputError(
            f"data.camera_pattern = {pattern!r} has no group named camera; expected one, as in 'cam(?P<camera>[0-9]+)_'"
        )
    return expression


def _listed(table: Path, paths: Sequence[str]) -> dict[str, str]:
    """Path -> camera."""
    listed: dict[str, str] = {}
    for place, row in rows(table, COLUMNS, COLUMNS):
        path = str(PurePosixPath(row["path"]))
        if listed.setdefault(path, row["camera"]) != row["camera"]:
            raise InputError(f"{place}: {path} has two cameras, {listed[path]!r} and {row['camera']!r}; remove a line")
    if paths and listed.keys().isdisjoint(paths):
        raise InputError(f"{table} names none of the images; expected paths below its folder such as {paths[0]}")
    return listed


def _numbers(names: Sequence[str | None]) -> list[int]:
    """Whole numbers are themselves."""
    known = sorted({name for name in names if name})
    number = {name: place for place, name in enumerate(known)}
    if all(re.fullmatch("[0-9]{1,18}", name) for name in known):
        number = {name: int(name) for name in known}
    return [number[name] if name else -1 for name in names]
