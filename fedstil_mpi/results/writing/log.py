"""log.txt: what a run has printed, for whoever comes later."""

from datetime import datetime

from rich.console import RenderableType

from fedstil_mpi.results.writing.run_folder import RunFolder
from fedstil_mpi.util import terminal

LOG_FILE = "log.txt"
"""In the run folder."""


class Log:
    """Lives on rank 0. What comes before the run has its config is kept until `open`: a folder with a log alone is no run."""

    def __init__(self, folder: RunFolder):
        self._folder = folder
        self._pending: list[str] | None = []
        """None once it is open."""

    def line(self, text: str) -> None:
        """Add a line with the date and the time. Raises StorageError."""
        self._add(f"{datetime.now().isoformat(' ', 'seconds')}  {text}\n")

    def show(self, *shown: RenderableType) -> None:
        """Add texts and tables as they look on a terminal without colours. Raises StorageError."""
        self._add(terminal.as_text(*shown))

    def open(self) -> None:
        """Write to the folder from now on; a run that goes on adds to what is there. Raises StorageError."""
        pending, self._pending = self._pending, None
        if pending:
            self._add("".join(pending))

    def _add(self, text: str) -> None:
        if self._pending is None:
            self._folder.append(LOG_FILE, text)
        else:
            self._pending.append(text)
