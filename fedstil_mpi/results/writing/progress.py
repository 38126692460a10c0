"""A bar of rounds, where a person watches."""

from collections.abc import Sequence

from rich.console import Console
from rich.progress import Progress

from fedstil_mpi.federation.observer import Observer


class RoundsBar(Observer):
    """rounds: how many there are to come."""

    def __init__(self, console: Console, rounds: int):
        self._bar = Progress(console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("rounds", total=rounds)
        self._bar.start()

    def end_round(self, round: int, online: Sequence[int]) -> None:
        self._bar.advance(self._task)

    def end(self) -> None:
        self._bar.stop()
