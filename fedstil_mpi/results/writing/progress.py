"""How far a run is: a bar where a person watches, else a line for each stage of the set-up and for each round."""

import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.progress import Progress

from fedstil_mpi.federation.observer import Observer
from fedstil_mpi.results.writing import summary
from fedstil_mpi.results.writing.record import Record


class RunProgress(Observer):
    """From the first stage of the set-up to the last round."""

    def __init__(self, console: Console, tell: Callable[[str], None], *, bar: bool):
        """tell: is given each line; bar: whether a bar is shown besides."""
        self._tell = tell
        self._began = time.monotonic()
        self._bar = Progress(console=console, disable=not bar)
        self._task = self._bar.add_task("set-up", total=None)
        self._bar.start()

    def stage(self, what: str) -> None:
        """A part of the set-up begins."""
        self._bar.update(self._task, description=what)
        self._tell(f"{summary.duration(time.monotonic() - self._began):>8}  {what}")

    def begin(self, record: Record, done: int) -> None:
        """The rounds begin, after the first `done`; record: is told of each of them before this is."""
        self._record, self._done, self._rounds_began = record, done, time.monotonic()
        self._bar.reset(self._task, total=record.schedule.total, completed=done, description="rounds")

    def end_round(self, round: int, online: Sequence[int]) -> None:
        self._bar.advance(self._task)
        now = time.monotonic()
        left = (now - self._rounds_began) / (round - self._done) * (self._record.schedule.total - round)
        self._tell(f"{summary.duration(now - self._began):>8}  {summary.round_line(self._record, round, left)}")

    def end(self) -> None:
        self._bar.stop()
