"""What rank 0 shows and stores of a run, from the first line to the last."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from fedstil_mpi.evaluation.scopes import words
from fedstil_mpi.federation.messages import message_schema
from fedstil_mpi.federation.observer import Observer, Observers
from fedstil_mpi.federation.plan import Plan
from fedstil_mpi.federation.server_place import Places, places
from fedstil_mpi.federation.start_model import blank_network
from fedstil_mpi.federation.state import LOST, Federation
from fedstil_mpi.results import RESULTS_FILE
from fedstil_mpi.results.writing import summary
from fedstil_mpi.results.writing.log import Log
from fedstil_mpi.results.writing.progress import RunProgress
from fedstil_mpi.results.writing.record import Record
from fedstil_mpi.results.writing.results_file import write_results
from fedstil_mpi.results.writing.run_folder import RunFolder
from fedstil_mpi.results.writing.trackers import open_trackers
from fedstil_mpi.results.writing.tracking import Tracking
from fedstil_mpi.util import terminal
from fedstil_mpi.util.terminal import Detail, nobody_reads


class RunOutput:
    """One run's output; lives on rank 0. What is printed stands in log.txt, too, and all of it where less is printed."""

    def __init__(self, plan: Plan, placements: list[dict[str, Any]], mpi: str, detail: Detail):
        """Opens the run folder, to be closed by `close`; raises InputError where it cannot be used. mpi: `World.library`."""
        self.plan = plan
        self.placements = placements
        """The ranks that are there now, as rows of a table."""
        self.mpi = mpi
        self.brief = detail == "brief"
        self.folder = RunFolder(plan.experiment.folder)
        self.state = self.folder.open(plan.experiment)
        """absent | interrupted | complete: what is there of this run already."""
        self.console = terminal.console()
        self.log = Log(self.folder)
        self.tracking = ExitStack()
        if self.state == "complete":
            self._print(f"{self.folder.path} is complete")
            return
        headline = summary.headline(plan.experiment, plan.schedule)
        table = summary.placement_table(placements, _places(plan, len(placements)))
        self.log.line(headline)
        self._print(headline)
        self.log.show(table)
        if not self.brief:
            self._print(table)
        watched = self.console.is_terminal
        self.lines = detail == "lines" or (detail == "usual" and not watched)
        self.progress = RunProgress(self.console, self._tell, bar=watched and not self.lines)

    def close(self) -> None:
        """Let go of the terminal and of the run folder."""
        if self.state != "complete":
            self.progress.end()
        self.tracking.close()
        self.folder.close()

    def stage(self, what: str) -> None:
        """A part of the set-up begins."""
        self.progress.stage(what)

    def begin(self, f: Federation, placements: list[dict[str, Any]], done: int) -> Observer:
        """Note the config, if the run begins, and begin to record after `done` rounds. Raises StorageError."""
        self.placements = placements
        self.folder.create(self.plan.experiment, placements, self.mpi)
        self.log.open()
        self.record = Record(self.folder, f.schedule, f.exchange.ledger, f.events, f.scopes.names)
        self.progress.begin(self.record, done)
        self.tracking.close()
        tracking = Tracking(self.record, open_trackers(self.plan.experiment.tracking, self.folder.path))
        self.tracking.callback(tracking.close)
        return Observers(self.record, self.progress, tracking)

    def show_event(self, event: dict[str, Any]) -> None:
        """Print an interruption of the run. Raises StorageError."""
        self.remark(summary.event_line(event))

    def save(self, timings: list[dict[str, float]], fingerprints: list[str]) -> None:
        """Store the results; raises StorageError. timings: seconds by rank and activity; fingerprints: by client."""
        self.folder.check()
        write_results(self.folder.path / RESULTS_FILE, self.record, timings, fingerprints)

    def end(self, timings: Sequence[dict[str, float]], more: Mapping[str, Table], lines: Sequence[str]) -> None:
        """Mark the run as complete, and show the tables. Raises StorageError.

        timings: as `save`; more: further tables by title; lines: come after them.
        """
        record = self.record
        tables = {
            f"After the last round, mean over tasks, {words(record.scopes[record.headline])} (%)": (
                summary.results_table(record)
            ),
            "What crossed the edge links, all clients and rounds": summary.bytes_table(record),
            "Where the time went (s)": summary.time_table(timings, self.placements),
            **more,
        }
        if len(record.scopes) > 1:
            tables["By scope, mean over clients and tasks (%)"] = summary.scopes_table(record)
        lost = [summary.event_line(event) for event in self.record.events if event["event"] == LOST]
        remarks = [*lost, *summary.doubts(self.record)]
        shown: list[RenderableType] = []
        for title, table in tables.items():
            shown += [Text(f"\n{title}", style="bold"), table]
        shown += ["", *lines, *remarks, f"results in {self.folder.path}"]
        self.log.show(*shown)
        self.folder.finish()
        self._print(*([*remarks, summary.result_line(self.record, timings)] if self.brief else shown))

    def remark(self, *lines: str) -> None:
        """Print lines, however little is printed. Raises StorageError."""
        for line in lines:
            self.log.line(line)
            self._print(line)

    def _tell(self, line: str) -> None:
        self.log.line(line)
        if self.lines:
            try:
                self._print(line)
            except BrokenPipeError as error:  # the run goes on, and the log with it
                if not nobody_reads(error):
                    raise

    def _print(self, *shown: RenderableType) -> None:
        for one in shown:
            self.console.print(one, soft_wrap=isinstance(one, str))


def _places(plan: Plan, ranks: int) -> Places:
    """Where a run on so many ranks keeps what is large; what follows from a model without values."""
    network = blank_network(plan.experiment, plan.num_classes)
    schema = message_schema(plan.experiment, plan.method, plan.schedule.clients, network)
    return places(plan.experiment, plan.method, schema, ranks)
