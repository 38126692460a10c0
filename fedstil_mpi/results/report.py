"""What rank 0 shows and stores of a run, from the first line to the last."""

from collections.abc import Iterable
from typing import Any

from rich.progress import track

from fedstil_mpi.federation import Plan
from fedstil_mpi.planning.forecast import Forecast
from fedstil_mpi.results import outlook, summary, terminal
from fedstil_mpi.results.record import Record
from fedstil_mpi.results.run_folder import RunFolder
from fedstil_mpi.rounds import Federation


class Report:
    """One run's output; lives on rank 0."""

    def __init__(self, plan: Plan, seats: list[dict[str, Any]], *, brief: bool = False):
        """Raises InputError where the run folder cannot be used; it is made later, so that a refused run leaves none."""
        self.plan = plan
        self.seats = seats
        self.brief = brief
        self.folder = RunFolder.check(plan.experiment)
        self.console = terminal.console()
        self.console.print(summary.headline(plan.experiment, plan.schedule), soft_wrap=True)
        if not brief:
            self.console.print(summary.placement_table(seats))

    def begin(self, federation: Federation) -> None:
        """Make the run folder, start to record, and show progress where a person watches."""
        self.folder.create(self.plan.experiment, self.seats)
        self.record = Record(self.folder, federation.schedule, federation.exchange.ledger)
        federation.record = self.record
        federation.progress = self._progress

    def _progress(self, rounds: Iterable) -> Iterable:
        return track(
            rounds,
            description="rounds",
            total=self.plan.schedule.total,
            console=self.console,
            disable=not self.console.is_terminal,
        )

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
        if self.brief:
            self.console.print(summary.result_line(self.record, timings), soft_wrap=True)
            return
        tables = {
            "After the last round, mean over tasks (%)": summary.results_table(self.record),
            "What crossed the edge links, all clients and rounds": summary.bytes_table(self.record),
            "Where the time went (s)": summary.time_table(timings),
            "Memory, with libraries, estimated and at its peak (MB)": outlook.peaks_table(predicted, measured),
        }
        for title, table in tables.items():
            self.console.print(f"\n[bold]{title}")
            self.console.print(table)
        self.console.print("\nbytes: as predicted from the layouts")
        for line in outlook.verdict(predicted, measured, self.folder.path):
            self.console.print(line, soft_wrap=True)
        self.console.print(f"results in {self.folder.path}")
