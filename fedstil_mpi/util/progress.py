"""Progress of long work on images, for a person who watches the terminal."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from rich import progress as bars
from rich.markup import escape
from rich.text import Text

from fedstil_mpi.util import terminal
from fedstil_mpi.util.text import printable

Watch = Callable[[Iterable[Any]], Iterable[Any]]
"""Passes things on, perhaps showing how many have passed."""

Progress = Callable[[str, int], Watch]
"""A watch for what is done to how many images in all. What passes are images one by one, or blocks of them as arrays."""


def unseen(what: str, total: int) -> Watch:
    """Nobody watches."""
    return iter


def shown(what: str, total: int, unit: str = "images", step: int = 1) -> Watch:
    """A bar with the rate and the time that is left, unless standard output is no terminal.

    step: how many units each thing stands for that is no array.
    """

    def watch(things: Iterable[Any]) -> Iterator[Any]:
        console = terminal.console()
        columns = (*bars.Progress.get_default_columns(), bars.MofNCompleteColumn(), _Rate(unit))
        with bars.Progress(*columns, console=console, disable=not console.is_terminal) as bar:
            task, done = bar.add_task(escape(printable(what)), total=total), 0
            for thing in things:
                yield thing
                done += len(thing) if isinstance(thing, np.ndarray) else step
                bar.update(task, completed=min(done, total))

    return watch


class _Rate(bars.ProgressColumn):
    def __init__(self, unit: str):
        super().__init__()
        self.unit = unit

    def render(self, task: bars.Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:,.0f} {self.unit}/s")
