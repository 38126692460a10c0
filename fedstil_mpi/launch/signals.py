"""Signals that ask a run to stop: they set a flag, and the run stops at a place from which it can be resumed."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PAUSED = 75
"""Exit code of a run that was asked to stop and can be continued (EX_TEMPFAIL: try again later)."""


@contextmanager
def listening() -> Iterator[Callable[[], bool]]:
    """Within the block SIGUSR1 and SIGTERM end nothing; the callable it yields returns whether one has come.

    A second SIGTERM ends the process at once. For the main thread; handlers are put back at the end.
    """
    asked = False

    def note(number: int, frame: object) -> None:
        nonlocal asked
        asked = True
        if number == signal.SIGTERM:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    before = {number: signal.signal(number, note) for number in (signal.SIGUSR1, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
