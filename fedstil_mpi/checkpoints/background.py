"""Work beside the run: a checkpoint is written while the next round trains."""

import threading
from collections.abc import Callable


class Background:
    """One piece of work at a time, on a thread of its own. What it raises is raised where it is waited for."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def idle(self) -> bool:
        """Whether there is nothing to wait for."""
        return self._thread is None

    def start(self, work: Callable[[], None]) -> None:
        """Begin; what was begun before must be finished."""

        def run() -> None:
            try:
                work()
            except BaseException as error:  # raised again by `finish`
                self._error = error

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait for its end, if there is any."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error
