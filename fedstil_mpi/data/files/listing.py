"""What is in the folders of a data set, in one order everywhere; what is passed over is counted, with the reason."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fedstil_mpi.util.errors import InputError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
"""The image files that are read, in lower or upper case."""
OTHER_SUFFIXES = (".avif", ".gif", ".heic", ".jp2", ".pgm", ".ppm", ".raw", ".tif", ".tiff")
"""Image files, too, which are not."""
LEFTOVERS = ("thumbs.db", "desktop.ini", "@eadir", "__macosx")

HIDDEN = "hidden, or left by other programs (._x.jpg, Thumbs.db, @eaDir, __MACOSX)"
LEADS_OUT = "links out of the folder (--follow-links or data.follow_links=true follows them)"
LEADS_NOWHERE = "links to nothing"
OTHER_NAME = "image files with other names than the set's"
BESIDE = "image files beside the set's folders"
OTHER_FOLDER = "folders that are not the set's"


@dataclass
class Tree(os.PathLike[str]):
    """A folder and all below it; it can be used as the path of the folder."""

    root: Path
    follow_links: bool = False
    """Also those that lead out of the root."""
    passed_over: Counter[str] = field(default_factory=Counter)
    """Reason -> how many files, or folders as a whole."""

    def __fspath__(self) -> str:
        return str(self.root)

    def __truediv__(self, path: str) -> Path:
        return self.root / path

    def entries(self, folder: Path, content: str) -> list[os.DirEntry[str]]:
        """What is in the folder, sorted by name, without what is hidden, was left by other programs, or leads elsewhere.

        Raises InputError where the folder cannot be listed or leads out of the root, saying that `content` was expected.
        """
        if problem := self.leads(folder):
            raise InputError(f"{folder} is one of the {problem}: expected {content}; copy its target there")
        try:
            with os.scandir(folder) as listing:
                found = sorted(listing, key=lambda entry: entry.name)
        except (OSError, ValueError) as error:  # ValueError: a null byte
            raise InputError(
                f"{folder} cannot be listed ({getattr(error, 'strerror', error)}): expected {content}; create it or correct the "
                "path"
            ) from error
        return [entry for entry in found if not self._is_passed_over(entry)]

    def files(self, folder: str, depth: int, content: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """(path below the folder, entry) of the files in root/folder and in `depth` levels of folders in it, sorted.

        Raises InputError as `entries` does.
        """
        yield from self._files(self.root / folder, "", depth, content)

    def leads(self, path: str | Path) -> str | None:
        """Why a path is passed over that symbolic links lead out of the root, nowhere or in circles; else None."""
        if not os.path.exists(path):  # which takes links in circles, where Path.resolve may raise
            return LEADS_NOWHERE if os.path.islink(path) else None
        if self.follow_links or Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.root)):
            return None
        return LEADS_OUT

    def count_beside(self, entry: os.DirEntry[str]) -> None:
        """Count a folder, or an image file, that stands where the set has none."""
        if entry.is_dir():
            self.passed_over[OTHER_FOLDER] += 1
        elif looks_like_image(entry.name):
            self.passed_over[BESIDE] += 1

    def _files(self, folder: Path, above: str, depth: int, content: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        for entry in self.entries(folder, content):
            if not entry.is_dir():
                yield above + entry.name, entry
            elif depth:
                yield from self._files(Path(entry.path), f"{above}{entry.name}/", depth - 1, content)
            else:
                self.passed_over[OTHER_FOLDER] += 1

    def _is_passed_over(self, entry: os.DirEntry[str]) -> bool:
        hidden = entry.name.startswith(".") or entry.name.lower() in LEFTOVERS
        reason = HIDDEN if hidden else self.leads(entry.path) if entry.is_symlink() else None
        if reason:
            self.passed_over[reason] += 1
        return reason is not None


def is_image(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file of a format that is read, by its name."""
    return entry.name.lower().endswith(SUFFIXES) and entry.is_file()


def looks_like_image(name: str) -> bool:
    """Whether the name ends as image files' do, whatever is in it and whether it is read or not."""
    return name.lower().endswith((*SUFFIXES, *OTHER_SUFFIXES))
