"""What trackers are told of a run."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import methodcaller

from fedstil_mpi.comm.ledger import DOWN, UP
from fedstil_mpi.federation.observer import Observer
from fedstil_mpi.results.writing.record import Record
from fedstil_mpi.results.writing.trackers import Tracker
from fedstil_mpi.util.terminal import say


class Tracking(Observer):
    """Tells them the means that metrics.jsonl has, each under the round that it is of.

    One that fails is left out from then on.
    """

    def __init__(self, record: Record, trackers: Mapping[str, Tracker]):
        """record: is told of every round before this is; trackers: by name."""
        self._record = record
        self._trackers = dict(trackers)
        self._told = 0
        """The last round that they were told of."""

    def end_round(self, round: int, online: Sequence[int]) -> None:
        """Also tells of the rounds before it, where the run goes on with other trackers than it had."""
        for earlier in range(self._told + 1, round + 1):
            self._tell(earlier)
        self._told = round

    def end(self) -> None:
        self.end_round(self._record.schedule.total + 1, [])

    def close(self) -> None:
        self._each(methodcaller("close"))

    def _tell(self, round: int) -> None:
        for at, values in self._known(round):
            finite = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
            self._each(methodcaller("note", at, finite))

    def _each(self, work: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                work(tracker)
            except Exception as error:  # a run of hours does not end because another program does
                say(f"tracking by {name} ends here, the run goes on: {type(error).__name__}: {error}")
                del self._trackers[name]

    def _known(self, round: int) -> Iterator[tuple[int, Mapping[str, float | None]]]:
        """What became known in a round, and of which round it is."""
        record = self._record
        if round in record.reports:
            megabytes = {f"MB {way}": record.ledger.total(of, round) / 1e6 for way, of in (("down", DOWN), ("up", UP))}
            yield round, {"loss": record.loss(round), "seconds": record.seconds[round], **megabytes}
        for model, at in record.news(round).items():
            yield at, {f"{model}/{metric}": value for metric, value in record.means(model, at).items()}
