"""What a run prints: the placement of ranks, a line for each round, and the final tables."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from rich.table import Table

from fedstil_mpi.comm.ledger import DOWN, UP
from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.evaluation.lifelong import mean_of_known
from fedstil_mpi.evaluation.scopes import words
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.federation.server_place import Places
from fedstil_mpi.federation.state import RESUMED
from fedstil_mpi.results.writing.record import Record
from fedstil_mpi.util.clock import CPU
from fedstil_mpi.util.plugins import label
from fedstil_mpi.util.tables import LONGEST, plain

ACTIVITIES = ("train", "evaluate", "exchange", "wait", "checkpoint", "set-up")


def headline(experiment: Experiment, schedule: Schedule) -> str:
    """One line that says what is about to run."""
    method, data, model = experiment.method, experiment.data, experiment.model
    return (
        f"{experiment.name}: {label(method.name)} ({method.preset_and_more}) on {label(data.kind)}, {schedule.clients} clients x "
        f"{schedule.tasks} tasks, {schedule.total} rounds, {label(model.backbone)}, seed {experiment.seed}{_absences(schedule)}"
    )


def _absences(schedule: Schedule) -> str:
    """A clause on what full participation lacks, or nothing."""
    efforts = schedule.efforts()
    online = ~np.isnan(efforts)
    short, never = (efforts < 1).sum(), (~online.any(axis=0)).sum()
    if online.all() and not short:
        return ""
    parts = [f"; clients take part {online.sum()} of {online.size} times"]
    parts += [f"{short} times with less training"] if short else []
    parts += [f"{never} of {schedule.clients} clients never"] if never else []
    return ", ".join(parts)


def result_line(record: Record, timings: Sequence[dict[str, float]]) -> str:
    """One line that says how it ended: means over clients of what is served, bytes of all clients, seconds."""
    served = record.final("served")
    accuracy = ", ".join(
        f"{word} {_number(mean_of_known(served[name][:, record.headline]))}"
        for word, name in (("rank-1", "rank1"), ("mAP", "map"), ("forgetting", "forgetting"))
    )
    longest = max(sum(seconds.get(name, 0.0) for name in ACTIVITIES) for seconds in timings)
    return f"  {accuracy}; {_megabytes(record)}; {longest:.0f} s"


def round_line(record: Record, round: int, left: float) -> str:
    """One line on a round that has ended, with the mean rank-1 of `Record.news`.

    left: seconds that the rounds after it may take.
    """
    parts = [f"round {round} of {record.schedule.total}", f"about {duration(left)} left", _megabytes(record)]
    for model, at in record.news(round).items():
        rank1 = record.means(model, at)["rank1"]
        parts.append(f"{model} rank-1 {'-' if rank1 is None else f'{rank1:.1f}'} (round {at})")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """As 0:07, 12:34 or 1:23:45."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def placement_table(rows: Sequence[dict[str, Any]], places: Places) -> Table:
    """rows: one per rank, as `placement.table` gives them. Of many ranks, neighbours that are alike share a line."""
    words = ("host", "roles", "device", "server's rows", "clients away")
    table = plain("rank", "host", "roles", "device", "threads", "server's rows", "clients away", left=words)

    def kind(row: dict[str, Any]) -> tuple[Any, ...]:
        apart = row["rank"] if len(rows) <= LONGEST else row["rank"] == 0
        return apart, row["host"], row["gpu"] or row["device"], row["threads"]

    for (_, host, device, threads), group in groupby(rows, kind):
        alike = list(group)
        first, last = alike[0]["rank"], alike[-1]["rank"]
        clients = [client for row in alike for client in row["clients"]]
        roles = ["server"] * (first == 0)
        if clients and (first < last or len(clients) > LONGEST):
            roles += [f"clients {clients[0]} to {clients[-1]}"]
        else:
            roles += [f"client {client}" for client in clients]
        ranks = str(first) if first == last else f"{first}-{last}"
        rows_here = "some columns" if places.shared else "all" * (first == 0)
        in_files = f"in files, waves of {places.at_once}" if places.at_once else "in files"
        away = (in_files if places.in_files else "in memory") if clients else ""
        table.add_row(ranks, host, ", ".join(roles) or "nothing", device, str(threads), rows_here, away)
    return table


def results_table(record: Record) -> Table:
    """Per client, unless there are many, and mean: what is served in the end, in the headline scope, and bytes."""
    measured = {title: values[:, record.headline] for title, values in _measured(record).items()}
    clients = range(record.schedule.clients)
    for title, way in (("MB down", DOWN), ("MB up", UP)):
        measured[title] = np.array([record.ledger.total(way, client=client) / 1e6 for client in clients])
    table = plain("client", *measured)
    for client in clients if len(clients) <= LONGEST else ():
        table.add_row(str(client), *(_number(column[client]) for column in measured.values()))
    table.add_section()
    table.add_row("mean", *(_number(mean_of_known(column)) for column in measured.values()), style="bold")
    return table


def scopes_table(record: Record) -> Table:
    """Per scope: what is served in the end, mean over clients."""
    measured = _measured(record)
    table = plain("scope", *measured, left=["scope"])
    for at, scope in enumerate(record.scopes):
        row = (_number(mean_of_known(column[:, at])) for column in measured.values())
        table.add_row(words(scope), *row, style="bold" if at == record.headline else "")
    return table


def _measured(record: Record) -> dict[str, np.ndarray]:
    """Title -> percent, float64 [clients, scopes], of the served and of the local model in the end.

    Where not all queries have a match, also the share that the figures rest on.
    """
    served, local = record.final("served"), record.final("local")
    titles = {"rank-1": "rank1", "rank-5": "rank5", "mAP": "map", "forgetting": "forgetting"}
    columns = {title: served[name] for title, name in titles.items()} | {"local rank-1": local["rank1"]}
    return columns | ({"queries counted": served["counted"]} if (served["counted"] < 100).any() else {})


def doubts(record: Record) -> list[str]:
    """One line each on what has to be known of the figures."""
    lines = [
        f"client {client} diverged in round {round}; a model that has diverged finds nobody, its figures are 0"
        for client, round in record.diverged().items()
    ]
    counted = mean_of_known(record.final("served")["counted"][:, record.headline])
    if counted < 100:
        lines.append(f"the figures rest on {counted:.1f} % of the queries; the others have no match in their gallery")
    return lines


def bytes_table(record: Record) -> Table:
    table = plain("direction", "kind", "raw MB", "encoded MB", left=("direction", "kind"))
    for (direction, kind), (raw, encoded) in sorted(record.ledger.by_kind().items(), reverse=True):
        table.add_row(direction, kind, f"{raw / 1e6:.3f}", f"{encoded / 1e6:.3f}")
    return table


def event_line(event: dict[str, Any]) -> str:
    """One line on an entry of `Record.events`."""
    if event["event"] == RESUMED:
        return f"resumes after round {event['after_round']} with {event['ranks']} ranks"
    start = f"rank {event['rank']} on {event['host']} was lost in round {event['round']}"
    if not event["clients"]:
        return f"{start}; it had no clients"
    if event["adopted_by"] is None:
        return f"{start}; {', '.join(f'client {client} is absent' for client in event['clients'])} from then on"
    adopted = zip(event["clients"], event["adopted_by"], strict=True)
    return f"{start}; {', '.join(f'client {client} continues on rank {rank}' for client, rank in adopted)}"


def time_table(timings: Sequence[dict[str, float]], placements: Sequence[dict[str, Any]]) -> Table:
    """Wall seconds by rank and activity, and CPU seconds of all of the rank's threads."""
    columns = (*ACTIVITIES, CPU)
    table = plain("rank", *columns)
    for placement, seconds in zip(placements, timings, strict=True):
        table.add_row(str(placement["rank"]), *(f"{seconds.get(name, 0.0):.1f}" for name in columns))
    return table


def _megabytes(record: Record) -> str:
    """So far, of all clients in both directions."""
    return f"{(record.ledger.total(DOWN) + record.ledger.total(UP)) / 1e6:.1f} MB"


def _number(value: float | np.ndarray) -> str:
    return "-" if np.isnan(value) else f"{value:z.1f}"
