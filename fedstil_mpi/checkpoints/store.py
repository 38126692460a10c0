"""The checkpoints of a run folder: one folder for each round after which one was taken, of which the last two are kept.

checkpoints/start.safetensors               the start model, once
checkpoints/00005/client-0.safetensors ...  after round 5; checkpoint.json is written last and makes it complete
checkpoints/00005/learning/...              how far round 6 had come when the run was paused in it

What has not changed since the checkpoint before is the same file, under a second name.
"""

import re
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from fedstil_mpi.checkpoints import FOLDER, START, files
from fedstil_mpi.checkpoints.files import Note, Snapshot, partial
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.files import clear_partials, complete, link, storing
from fedstil_mpi.util.state_tree import State

FORMAT = 4
MARKER = "checkpoint.json"
KEPT = 2
"""Checkpoints on the disk, besides the start model."""
NAME = re.compile(r"[0-9]{5,9}")


@dataclass(frozen=True)
class Checkpoint:
    """A complete set of files that belong together."""

    folder: Path
    round: int
    """The last round that was finished."""
    notes: dict[str, Note]
    """Name of a file without its suffix -> its note."""

    def read(self, name: str) -> State | None:
        """The state that was written under this name; None where there is none. Raises InputError where it is damaged."""
        return files.read(self.folder / f"{name}.safetensors", self.notes[name]) if name in self.notes else None

    def names(self, prefix: str) -> list[str]:
        """Those that begin like this, in alphabetical order."""
        return sorted(name for name in self.notes if name.startswith(prefix))


class CheckpointStore:
    """A run's checkpoints. All ranks write and read; committing and removing is for rank 0."""

    def __init__(self, run: Path, settings: str):
        """settings: the fingerprint of the run's config; a checkpoint of another run is refused."""
        self.folder = run / FOLDER
        self.settings = settings

    def write(
        self, rank: int, round: int, snapshots: Iterable[tuple[str, Snapshot]], *, learning: bool = False
    ) -> None:
        """Write one rank's states, each with its name, as `files.copy` gave them, for a checkpoint that `commit` will complete.

        round: the last one that is finished, 0 for the start. learning: of the round after it. Raises StorageError where
        the disk does not take it.
        """
        folder = partial(self._place(round, learning))
        notes = {name: files.write(folder / f"{name}.safetensors", snapshot) for name, snapshot in snapshots}
        files.write_json(folder / f"rank-{rank}.json", notes)

    def commit(
        self, ranks: int, round: int, *, learning: bool = False, given_up: Callable[[], bool] = lambda: False
    ) -> None:
        """Complete a checkpoint as soon as so many ranks have written their files; others are those of the one before.

        Raises StorageError where the disk does not take it, InputError, once `given_up`, where files are missing.
        """
        place = self._place(round, learning)
        lists = [partial(place) / f"rank-{rank}.json" for rank in range(ranks)]
        while missing := [path for path in lists if not path.exists()]:
            if given_up():
                raise InputError(
                    f"{missing[0]} does not appear, though its rank has written it: expected a run folder that all hosts "
                    "share; set output="
                )
            time.sleep(0.005)
        notes = {name: note for path in lists for name, note in files.read_json(path).items()}
        with storing(place):
            if not learning and self.last_round:
                notes = self._link_unchanged(self.at(self.last_round), partial(place), notes)
            content = {"format": FORMAT, "round": round, "settings": self.settings, "files": notes}
            for path in lists:
                path.unlink()
            files.write_json(partial(place) / MARKER, content)
            shutil.rmtree(place, ignore_errors=True)
            complete(partial(place), place)

    def _link_unchanged(self, before: Checkpoint, folder: Path, notes: dict[str, Note]) -> dict[str, Note]:
        """Bring the files of `before` that were not written again to the folder; returns all files' notes."""
        unchanged = before.notes.keys() - notes.keys()
        for name in unchanged:
            link(before.folder / f"{name}.safetensors", folder / f"{name}.safetensors")
        return {name: before.notes[name] for name in unchanged} | notes

    @property
    def last_round(self) -> int:
        """The one after which the newest complete checkpoint was taken; 0 where there is none but of the start."""
        return max(self._rounds(), default=0)

    def free_space(self) -> None:
        """Remove all but the newest, before another one is written: there are never more than two, complete or not.

        Raises StorageError.
        """
        with storing(self.folder):
            for old in self._rounds()[: 1 - KEPT]:
                shutil.rmtree(self._place(old))

    def newest(self) -> Checkpoint | None:
        """The last complete checkpoint of a round's end, or of the start. Raises InputError where it cannot be used."""
        last = self.last_round
        return self.at(last) if last or self._place(0).is_dir() else None

    def at(self, round: int, *, learning: bool = False) -> Checkpoint:
        """A complete checkpoint. Raises InputError where its list of files cannot be used."""
        place = self._place(round, learning)
        content = files.read_json(place / MARKER)
        expected = {"format": FORMAT, "round": round, "settings": self.settings}
        for key, value in expected.items():
            if content.get(key) != value:
                raise InputError(
                    f"{place / MARKER} has {key} = {content.get(key)!r}, expected {value!r}: it belongs to another run or "
                    "version; go on with the version that wrote it, or choose another name= to start again"
                )
        return Checkpoint(place, round, content["files"])

    def was_learning(self, round: int) -> bool:
        """Whether the run was paused in the round after this one."""
        return self._place(round, learning=True).is_dir()

    def clear(self) -> None:
        """Remove what an interrupted write has left. Raises StorageError."""
        with storing(self.folder):
            clear_partials(self.folder)

    def remove(self) -> None:
        """Remove them all."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _place(self, round: int, learning: bool = False) -> Path:
        place = self.folder / (f"{round:05d}" if round else START)
        return place / "learning" if learning else place

    def _rounds(self) -> list[int]:
        """After which there is a complete checkpoint, in ascending order."""
        if not self.folder.is_dir():
            return []
        return sorted(
            int(entry.name) for entry in self.folder.iterdir() if NAME.fullmatch(entry.name) and entry.is_dir()
        )
