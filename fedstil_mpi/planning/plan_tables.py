"""What a plan shows of a run that is not made yet, and how a run that was made compares with it."""

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from fedstil_mpi.client.learner import KINDS
from fedstil_mpi.comm.ledger import DOWN, UP
from fedstil_mpi.planning.footprint import COLUMNS
from fedstil_mpi.planning.forecast import Forecast
from fedstil_mpi.util.tables import LONGEST, plain


def rounds_table(forecast: Forecast) -> Table:
    """Bytes by what is new in a round: of a client, as a mean, and of all clients and all rounds alike together."""
    table = plain("rounds", "number", "MB down a client", "MB up a client", "MB down", "MB up", left=["rounds"])
    for group in forecast.rounds:
        shares = (group.down / group.visits, group.up / group.visits)
        table.add_row(group.name, str(group.rounds), *map(_megabytes, (*shares, group.down, group.up)))
    table.add_section()
    sums = (forecast.ledger.total(DOWN), forecast.ledger.total(UP))
    means = (size / len(forecast.learners) for size in sums)
    table.add_row("total", str(forecast.schedule.total), *map(_megabytes, (*means, *sums)), style="bold")
    return table


def kinds_table(forecast: Forecast) -> Table:
    table = plain("direction", "kind", "MB", "", left=("direction", "kind"))
    for (direction, kind), (_, encoded) in sorted(forecast.ledger.by_kind().items(), reverse=True):
        bound = "at most" if (direction, kind) in forecast.at_most else ""
        remark = "at most, before its codec" if kind in forecast.packed else bound
        table.add_row(direction, kind, _megabytes(encoded), remark)
    return table


def clients_table(forecast: Forecast) -> Table:
    """Bytes and forward passes by client."""
    table = plain("client", "MB down", "MB up", *KINDS)
    for client, learner in forecast.learners.items() if forecast.schedule.clients <= LONGEST else ():
        sizes = (_megabytes(forecast.ledger.total(way, client=client)) for way in (DOWN, UP))
        table.add_row(str(client), *sizes, *(f"{learner.forward_counts[kind]}" for kind in KINDS))
    table.add_section()
    sizes = (_megabytes(forecast.ledger.total(way)) for way in (DOWN, UP))
    bounds = ("" if bound == "exactly" else f"{bound} " for bound in forecast.bounds.values())
    sums = (f"{bound}{forecast.forward_counts[kind]}" for bound, kind in zip(bounds, KINDS, strict=True))
    table.add_row("all", *sizes, *sums, style="bold")
    return table


def memory_table(forecast: Forecast, libraries: int) -> Table:
    """Estimated MB by rank and by `footprint.COLUMNS`; libraries: bytes of a process that has done nothing yet."""
    gpu = any(footprint.gpu for footprint in forecast.footprints)
    table = plain("rank", *COLUMNS, "peak", *(["GPU"] if gpu else []))
    rows = {str(rank): footprint for rank, footprint in enumerate(forecast.footprints)}
    if len(rows) > LONGEST:
        rows = dict(sorted(rows.items(), key=lambda row: row[1].host(), reverse=True)[:LONGEST])
    for rank, footprint in rows.items():
        parts = (_whole(footprint.parts.get(name, 0)) for name in COLUMNS)
        sums = (footprint.host() + libraries, *([footprint.device()] if gpu else []))
        table.add_row(rank, *parts, *map(_whole, sums))
    return table


def seconds_table(forecast: Forecast, pace: Mapping[str, float]) -> Table:
    """CPU seconds by rank that images take in the networks, where clients are dealt to ranks a mean of these; pace: as
    `pace.measure` gives it."""
    table = plain("rank", *pace, "sum")
    sums: Counter[str] = Counter()
    for place in forecast.placements:
        played = forecast.learners if place["rank"] in forecast.players else place["clients"]
        counts = (forecast.learners[client].forward_counts for client in played if client in forecast.learners)
        passes = sum(counts, Counter())
        seconds = {kind: passes[kind] * of_image / max(1, len(forecast.players)) for kind, of_image in pace.items()}
        sums.update(seconds)
        if len(forecast.placements) <= LONGEST:
            table.add_row(str(place["rank"]), *map(_tenths, (*seconds.values(), sum(seconds.values()))))
    table.add_section()
    table.add_row("all", *(_tenths(sums[kind]) for kind in pace), _tenths(sum(sums.values())), style="bold")
    return table


def peaks_table(forecast: Forecast, measured: Sequence[Mapping[str, Any]]) -> Table:
    """Estimated and measured peaks in MB by rank; measured: `resident.measure` of every rank."""
    gpu = any(footprint.gpu for footprint in forecast.footprints)
    table = plain("rank", "host estimate", "host peak", *(["GPU estimate", "GPU peak"] if gpu else []))
    for placement, footprint, found in zip(forecast.placements, forecast.footprints, measured, strict=True):
        sizes = [footprint.host() + found["libraries"], found["host"]]
        sizes += [footprint.device(), found["gpu"]] if gpu else []
        table.add_row(str(placement["rank"]), *map(_whole, sizes))
    return table


def warnings(forecast: Forecast) -> list[str]:
    """One line on what a run of this forecast will lack."""
    without = {learner: [n for n in learner.memory.counts.values() if not n] for learner in forecast.learners.values()}
    learner = max(without, key=lambda learner: len(without[learner]))
    if not without[learner]:
        return []
    size, met = learner.memory.size, len(learner.memory.counts)
    return [
        f"warning: memory.size = {size} is too small for an image of everyone: of the {met} people that client "
        f"{learner.client} meets, {len(without[learner])} are forgotten; set memory.size to {met} or more"
    ]


def place_lines(forecast: Forecast) -> list[str]:
    """Where what is as large as all clients' weights is kept, where that is not rank 0's memory."""
    lines = []
    if forecast.places.shared:
        held = sum(footprint.parts.get("server", 0) for footprint in forecast.footprints)
        where = f"by columns on all {len(forecast.placements)} ranks (placement.server)"
        lines.append(f"server: {_whole(held)} MB of memory, {where}")
    if forecast.players:
        lines.append("clients: dealt to the ranks anew in each round, longest first (placement.clients)")
    if forecast.away:
        folder = tempfile.gettempdir()
        lines.append(f"clients that sit rounds out: {_whole(forecast.away)} MB of files in {folder} (placement.away)")
    if at_once := forecast.places.at_once:
        lines.append(f"rounds go in waves: of the online clients {at_once} are in memory at a time (placement.at_once)")
    return lines


def verdict(forecast: Forecast, measured: Sequence[Mapping[str, Any]], folder: Path) -> list[str]:
    """One line each on forward passes and files; folder: of the run."""
    counts: Counter[str] = sum((Counter(found["forward_counts"]) for found in measured), Counter())
    differences = forecast.differences(counts)
    sizes = (
        f"{name} {_megabytes((folder / name).stat().st_size)} MB (predicted {_megabytes(size)})"
        for name, size in forecast.files.items()
    )
    return [f"forward passes: {', '.join(differences) or 'as predicted'}", f"disk: {', '.join(sizes)}"]


def files_table(forecast: Forecast) -> Table:
    table = plain("file", "MB", left=["file"])
    for name, size in forecast.files.items():
        table.add_row(name, _megabytes(size))
    table.add_row("checkpoints, until the run is complete, at least", _megabytes(forecast.checkpoints))
    return table


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.3f}"


def _tenths(seconds: float) -> str:
    return f"{seconds:.1f}"


def _whole(size: float) -> str:
    return f"{size / 1e6:.0f}"
