"""Where a rank's time went."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

CPU = "cpu"
"""Beside the activities: CPU seconds of all threads of the process, whatever they did."""


class Moment(NamedTuple):
    """Seconds, each from a start of its own."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> "Moment":
        return cls(time.perf_counter(), time.process_time())


class Clock:
    """Seconds of wall time by activity, and of CPU time, added up over a run; of this rank only."""

    def __init__(self, mark: Callable[[str], AbstractContextManager] = nullcontext) -> None:
        """mark: is entered while an activity of a name lasts."""
        self._mark = mark
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._cpu_from = Moment.now().cpu

    @contextmanager
    def __call__(self, activity: str) -> Iterator[None]:
        start = time.perf_counter()
        with self._mark(activity):
            yield
        self.seconds[activity] += time.perf_counter() - start

    def end_set_up(self, began: Moment) -> None:
        """Book the wall time since then as set-up, and count CPU time from there."""
        self.seconds["set-up"] += time.perf_counter() - began.wall
        self._cpu_from = began.cpu

    def spent(self) -> dict[str, float]:
        """Wall seconds by activity, and `CPU`."""
        return {**self.seconds, CPU: self.seconds[CPU] + Moment.now().cpu - self._cpu_from}
