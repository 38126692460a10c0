"""Seconds on edge links: what the bytes of a run's ledger would take over links of given rates.

A round is as long as its slowest client: everybody receives, trains (`compute` seconds, equal for all), and sends. A
client's transfer takes a link's latency and its bytes over the link's rate; the server's own link, with the same rate
both ways, carries all of them, so that none is over before its sum has passed. Left out: protocol overhead, losses, radio
waking up, and energy.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from fedstil_mpi.comm.ledger import DOWN, UP
from fedstil_mpi.results.reading.measures import over_seeds, stage_by_round
from fedstil_mpi.results.reading.runs import Run
from fedstil_mpi.results.reading.variants import Variant
from fedstil_mpi.util.errors import InputError, did_you_mean

FACTORS = {"k": 1e3, "M": 1e6, "G": 1e9}
RATE = r"(\d+(?:\.\d+)?)([kMG])bit"


@dataclass(frozen=True)
class Link:
    down: float
    """Bits a second."""
    up: float
    latency: float
    """Seconds until the first byte of a message arrives."""

    def __str__(self) -> str:
        return f"{self.down / 1e6:g} Mbit/s down, {self.up / 1e6:g} up, {1e3 * self.latency:g} ms"


LINKS = {
    "4g": Link(20e6, 10e6, 0.05),
    "dsl": Link(16e6, 2e6, 0.02),
    "lte-m": Link(300e3, 375e3, 0.1),
}
"""Typical of a good 4G cell and of ADSL2+; for LTE-M the half-duplex peak rates of category M1 (3GPP Release 13)."""


@dataclass(frozen=True)
class Assumptions:
    link: Link
    server: float = 1e9
    """Bits a second of the server's link, each way."""
    compute: float = 0.0
    """Seconds of a client's local training."""


def link(text: str) -> Link:
    """A link's name, or down[/up]/latency such as 20Mbit/50ms or 16Mbit/2Mbit/20ms. Raises InputError."""
    if text in LINKS:
        return LINKS[text]
    found = re.fullmatch(rf"{RATE}(?:/{RATE})?/(\d+(?:\.\d+)?)ms", text)
    if not found:
        raise InputError(
            f"--link {text!r}; {did_you_mean(text, LINKS)}expected one of {', '.join(LINKS)}, or rates and latency such as "
            "20Mbit/50ms or 16Mbit/2Mbit/20ms (down, up, latency)"
        )
    down, down_unit, up, up_unit, latency = found.groups()
    rates = float(down) * FACTORS[down_unit], float(up or down) * FACTORS[up_unit or down_unit]
    if not all(rates):
        raise InputError(f"--link {text!r}; expected rates above 0")
    return Link(rates[0], rates[1], float(latency) / 1000)


def round_seconds(run: Run, given: Assumptions) -> np.ndarray:
    """float64 [rounds + 1, 2]: seconds of a round down, and of training and the way up; last the closing distribution."""
    rounds, ledger = len(run.online), run.ledger
    seconds = np.zeros((rounds + 1, 2))
    for column, (direction, rate) in enumerate(((DOWN, given.link.down), (UP, given.link.up))):
        chosen = ledger["direction"] == direction
        sent = np.zeros((rounds + 1, run.clients))
        np.add.at(sent, (ledger["round"][chosen] - 1, ledger["client"][chosen]), 8.0 * ledger["encoded"][chosen])
        slowest = np.maximum(sent.max(axis=1) / rate, sent.sum(axis=1) / given.server)
        seconds[:, column] = np.where(slowest > 0, given.link.latency + slowest, 0)
    seconds[:rounds, 1] += given.compute
    return seconds


def seconds_by_evaluation(run: Run, given: Assumptions) -> np.ndarray:
    """When the served models of each evaluation were there, float64 [evaluations]: after the next round's way down."""
    seconds = round_seconds(run, given)
    ends = seconds.sum(axis=1).cumsum()
    rounds = run.of("served").rounds
    return ends[rounds - 1] + seconds[rounds, 0]


def seconds_to(run: Run, accuracy: float, given: Assumptions) -> float:
    """Until served rank-1 first reaches `accuracy` percent of the whole stream, whose tasks count 0 until they are met.

    nan where it never does.
    """
    reached = np.flatnonzero(accuracy_of_stream(run) >= accuracy)
    return float(seconds_by_evaluation(run, given)[reached[0]]) if len(reached) else np.nan


def totals(variant: Variant, given: Assumptions, accuracies: Sequence[float]) -> list[float]:
    """Seconds of a round, of the whole run, and until each accuracy; means over seeds, nan where not every seed gets there."""
    measures: list[Callable[[Run], float]] = [
        lambda run: float(round_seconds(run, given)[:-1].sum(axis=1).mean()),
        lambda run: float(round_seconds(run, given).sum()),
        *(partial(seconds_to, accuracy=accuracy, given=given) for accuracy in accuracies),
    ]
    return [float(over_seeds(variant, measure).mean()) for measure in measures]


def accuracy_of_stream(run: Run) -> np.ndarray:
    """Served rank-1, percent, mean over clients and all tasks, where tasks that were not met count 0, and those that have
    nothing to search are left out. [evaluations]."""
    served = run.of("served")
    rank1 = served.metrics[..., run.metrics.index("rank1")]
    met = stage_by_round(run)[served.rounds - 1][..., None] >= np.arange(rank1.shape[-1])
    counts = ~(met[-1] & np.isnan(rank1).all(axis=0))
    return 100 * np.where(met, np.nan_to_num(rank1), 0).mean(axis=(1, 2), where=counts)
