"""A run's output, with what the run did held against what was predicted of it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fedstil_mpi.comm.ledger import Ledger
from fedstil_mpi.data.streams.base import Stream
from fedstil_mpi.federation.observer import Observer, Observers
from fedstil_mpi.federation.plan import Plan
from fedstil_mpi.federation.state import Federation
from fedstil_mpi.planning import forecast, plan_tables
from fedstil_mpi.planning.outcome import Outcome
from fedstil_mpi.results.writing.run_output import RunOutput
from fedstil_mpi.util.terminal import Detail


class LedgerCheck(Observer):
    """Raises RuntimeError at the first round whose bytes are not the predicted ones, which would be a fault of ours."""

    def __init__(self, predicted: Ledger, ledger: Ledger):
        self.predicted = predicted
        self.ledger = ledger

    def end_round(self, round: int, online: Sequence[int]) -> None:
        self._check(round)

    def end(self) -> None:
        self._check(None)

    def _check(self, round: int | None) -> None:
        if different := self.predicted.difference(self.ledger, round):
            raise RuntimeError(f"the ledger is not what the layouts predict: {'; '.join(different[:10])}")


class CheckedOutput(RunOutput):
    """Lives on rank 0."""

    def __init__(self, plan: Plan, stream: Stream, placements: list[dict[str, Any]], mpi: str, detail: Detail):
        super().__init__(plan, placements, mpi, detail)
        self.stream = stream

    def begin(self, f: Federation, placements: list[dict[str, Any]], done: int) -> Observer:
        self.stage("prediction of bytes and forward passes")
        self.predicted = forecast.make(replace(self.plan, schedule=f.schedule), self.stream, placements, f.dealing)
        self.remark(*plan_tables.place_lines(self.predicted), *plan_tables.warnings(self.predicted))
        check = LedgerCheck(self.predicted.ledger, f.exchange.ledger)
        return Observers(super().begin(f, placements, done), check)

    def finish(self, outcome: Outcome) -> None:
        """Store the results and show them."""
        self.save(outcome.timings, outcome.fingerprints)
        peaks = plan_tables.peaks_table(self.predicted, outcome.measured)
        verdict = plan_tables.verdict(self.predicted, outcome.measured, self.folder.path)
        lines = ["bytes: as predicted from the layouts", *verdict]
        self.end(outcome.timings, {"Memory, with libraries, estimated and at its peak (MB)": peaks}, lines)
