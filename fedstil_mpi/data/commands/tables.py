"""What is printed of a stream."""

from collections.abc import Iterable, Sequence

import numpy as np
from rich.table import Table

from fedstil_mpi.data.inspection.counts import count
from fedstil_mpi.data.pack.manifest import ROLES, Plan
from fedstil_mpi.util.tables import plain

COLUMNS = ("people trained on", "people searched", "train", "query", "gallery", "cameras")


def headline(plan: Plan) -> str:
    """Images, people, cameras, clients and tasks; the server's images apart, as they have people and cameras of their own."""
    manifest = plan.manifest
    warmup = manifest.role == ROLES.index("warmup")
    camera = manifest.camera[~warmup]
    known = len(np.unique(camera[camera >= 0]))
    cameras = "unknown cameras" if not known else f"{known} {'known ' if (camera < 0).any() else ''}cameras"
    return (
        f"{(~warmup).sum():,} images of {len(np.unique(manifest.person[~warmup])):,} people by {cameras}, {plan.clients} "
        f"clients x {plan.tasks} tasks" + f", {warmup.sum():,} warm-up images" * bool(warmup.any())
    )


def by_client(plan: Plan) -> Table:
    """A row for each client, all its tasks together."""
    rows = (((str(client),), _numbers(plan, [client])) for client in range(plan.clients))
    return _table(plan, ("client",), rows)


def by_task(plan: Plan) -> Table:
    """A row for each client and task."""
    rows = (
        ((str(client), str(task)), [client * plan.tasks + task])
        for client in range(plan.clients)
        for task in range(plan.tasks)
    )
    return _table(plan, ("client", "task"), rows)


def _numbers(plan: Plan, clients: Iterable[int]) -> list[int]:
    """The numbers of all tasks of these clients."""
    return [client * plan.tasks + task for client in clients for task in range(plan.tasks)]


def _table(plan: Plan, names: Sequence[str], rows: Iterable[tuple[Sequence[str], list[int]]]) -> Table:
    table = plain(*names, *COLUMNS)

    def add(labels: Sequence[str], numbers: list[int], style: str = "") -> None:
        c = count(plan, numbers)
        counts = (c.trained, c.searched, c.train, c.query, c.gallery)
        table.add_row(*labels, *(f"{number:,}" for number in counts), str(c.cameras or "unknown"), style=style)

    for labels, numbers in rows:
        add(labels, numbers)
    table.add_section()
    add(["all", *[""] * (len(names) - 1)], _numbers(plan, range(plan.clients)), "bold")
    return table
