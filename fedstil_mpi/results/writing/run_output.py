"""What rank 0 shows and stores of a run, from the first line to the last."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from fedstil_mpi.federation.observer import Observer, Observers
from fedstil_mpi.federation.plan import Plan
from fedstil_mpi.federation.state import LOST, Federation
from fedstil_mpi.results import RESULTS_FILE
from fedstil_mpi.results.writing import summary
from fedstil_mpi.results.writing.progress import RoundsBar
from fedstil_mpi.results.writing.record import Record
from fedstil_mpi.results.writing.results_file import write_results
from fedstil_mpi.results.writing.run_folder import RunFolder, path_of
from fedstil_mpi.util import terminal


class RunOutput:
    """One run's output; lives on rank 0."""

    def __init__(self, plan: Plan, placements: list[dict[str, Any]], *, brief: bool = False):
        """Opens the run folder, to be closed by `close`; raises InputError where it cannot be used."""
        self.plan = plan
        self.placements = placements
        """The ranks that are there now, as rows of a table."""
        self.brief = brief
        self.folder = RunFolder(path_of(plan.experiment))
        self.state = self.folder.open(plan.experiment)
        """absent | interrupted | complete: what is there of this run already."""
        self.console = terminal.console()
        if self.state == "complete":
            self.console.print(f"{self.folder.path} is complete", soft_wrap=True)
            return
        self.console.print(summary.headline(plan.experiment, plan.schedule), soft_wrap=True)
        if not brief:
            self.console.print(summary.placement_table(placements))

    def close(self) -> None:
        """Let go of the run folder."""
        self.folder.close()

    def begin(self, f: Federation, placements: list[dict[str, Any]], done: int) -> Observer:
        """Note the config, if the run begins, and begin to record after `done` rounds. Raises StorageError."""
        self.placements = placements
        self.folder.create(self.plan.experiment, placements)
        self.record = Record(self.folder, f.schedule, f.exchange.ledger, f.events)
        return Observers(self.record, RoundsBar(self.console, f.schedule.total - done))

    def show_event(self, event: dict[str, Any]) -> None:
        """Print an interruption of the run."""
        self.console.print(summary.event_line(event), soft_wrap=True)

    def save(self, timings: list[dict[str, float]], fingerprints: list[str]) -> None:
        """Store the results; raises StorageError. timings: seconds by rank and activity; fingerprints: by client."""
        self.record.write_lines()
        write_results(self.folder.path / RESULTS_FILE, self.record, timings, fingerprints)
        self.folder.finish()

    def show(self, timings: Sequence[dict[str, float]], more: Mapping[str, Table], lines: Sequence[str]) -> None:
        """Print the tables. timings: as `save`; more: further tables by title; lines: come after them."""
        lost = [summary.event_line(event) for event in self.record.events if event["event"] == LOST]
        if self.brief:
            self._print([*lost, *summary.doubts(self.record), summary.result_line(self.record, timings)])
            return
        gallery = self.plan.experiment.evaluation.gallery
        scope = "" if gallery == "task" else f", gallery {gallery}"
        tables = {
            f"After the last round, mean over tasks{scope} (%)": summary.results_table(self.record),
            "What crossed the edge links, all clients and rounds": summary.bytes_table(self.record),
            "Where the time went (s)": summary.time_table(timings, self.placements),
            **more,
        }
        for title, table in tables.items():
            self.console.print(f"\n{title}", style="bold")
            self.console.print(table)
        self.console.print()
        self._print([*lines, *lost, *summary.doubts(self.record), f"results in {self.folder.path}"])

    def _print(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.console.print(line, soft_wrap=True)
