"""What rank 0 shows and stores of a run, from the first line to the last."""

from functools import partial
from typing import Any

from rich.progress import track

from fedstil_mpi.federation.rounds import Federation
from fedstil_mpi.federation.setup import Plan
from fedstil_mpi.planning import plan_tables
from fedstil_mpi.planning.forecast import Forecast
from fedstil_mpi.results.writing import summary
from fedstil_mpi.results.writing.record import LOST, METRICS_FILE, Record
from fedstil_mpi.results.writing.run_folder import RunFolder, path_of
from fedstil_mpi.util import terminal


class Report:
    """One run's output; lives on rank 0."""

    def __init__(self, plan: Plan, placements: list[dict[str, Any]], *, brief: bool = False):
        """Raises InputError where the run folder cannot be used; it is made later, so that a refused run leaves none."""
        self.plan = plan
        self.placements = placements
        self.brief = brief
        self.events: list[dict[str, Any]] = []
        """What befell the run since this process plays it."""
        self.folder = RunFolder(path_of(plan.experiment))
        self.state = self.folder.begin(plan.experiment)
        """absent | interrupted | complete: what is there of this run already."""
        self.console = terminal.console()
        if self.state == "complete":
            self.console.print(f"{self.folder.path} is complete", soft_wrap=True)
            return
        self.console.print(summary.headline(plan.experiment, plan.schedule), soft_wrap=True)
        if not brief:
            self.console.print(summary.placement_table(placements))

    def begin(self, federation: Federation, placements: list[dict[str, Any]], done: int) -> None:
        """Make the run folder, start to record, and show progress where a person watches.

        seats: of the ranks that are there now. done: rounds that a checkpoint has already.
        """
        self.placements = placements
        self.folder.create(self.plan.experiment, self.placements)
        self.record = Record(self.folder, federation.schedule, federation.exchange.ledger)
        self.folder.keep_lines(METRICS_FILE, done)
        federation.record = self.record
        federation.progress = partial(
            track,
            description="rounds",
            total=self.plan.schedule.total - done,
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def tell(self, event: dict[str, Any]) -> None:
        """Print what befell the run; `remember` records it."""
        self.events.append(event)
        self.console.print(summary.event_line(event), soft_wrap=True)

    def remember(self) -> None:
        """Record what was told, as far as the checkpoint that was gone back to does not know it."""
        self.record.events += [event for event in self.events if event not in self.record.events]

    def end(
        self,
        timings: list[dict[str, float]],
        fingerprints: list[str],
        predicted: Forecast,
        measured: list[dict[str, Any]],
    ) -> None:
        """Store the results, print the tables, and hold the run against its forecast.

        timings and measured (`resident.measure`): by rank; fingerprints: by client.
        """
        self.record.save(self.folder.path / "results.h5", timings, fingerprints)
        different = predicted.ledger.difference(self.record.ledger)
        if different:
            raise RuntimeError(f"the ledger is not what the layouts predict: {'; '.join(different[:10])}")
        self.folder.finish()
        lost = [summary.event_line(event) for event in self.record.events if event["event"] == LOST]
        if self.brief:
            for line in (*lost, summary.result_line(self.record, timings)):
                self.console.print(line, soft_wrap=True)
            return
        gallery = self.plan.experiment.evaluation.gallery
        scope = "" if gallery == "task" else f", gallery {gallery}"
        tables = {
            f"After the last round, mean over tasks{scope} (%)": summary.results_table(self.record),
            "What crossed the edge links, all clients and rounds": summary.bytes_table(self.record),
            "Where the time went (s)": summary.time_table(timings, self.placements),
            "Memory, with libraries, estimated and at its peak (MB)": plan_tables.peaks_table(predicted, measured),
        }
        for title, table in tables.items():
            self.console.print(f"\n[bold]{title}")
            self.console.print(table)
        self.console.print("\nbytes: as predicted from the layouts")
        for line in lost:
            self.console.print(line, soft_wrap=True)
        for line in plan_tables.verdict(predicted, measured, self.folder.path):
            self.console.print(line, soft_wrap=True)
        self.console.print(f"results in {self.folder.path}")
