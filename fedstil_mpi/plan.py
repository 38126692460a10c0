"""Say what a run would do, without running anything: placement of clients, bytes, passes, memory, disk.

    python -m fedstil_mpi.plan configs/quickstart.yaml [section.key=value ...] [--ranks N] [--json]

A run holds what it did against the same forecast. MPI is not started, and weights are neither downloaded nor read.
"""

import gc
import json
import os
import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedstil_mpi import methods
from fedstil_mpi.config import loading
from fedstil_mpi.config.command_line import Parser, cli_main
from fedstil_mpi.config.schema import Placement
from fedstil_mpi.data.sources import open_stream
from fedstil_mpi.launch.gpus import find_gpus
from fedstil_mpi.launch.placement import (
    HostResources,
    RankPlacement,
    assign_clients,
    choose_gpu,
    choose_threads,
    placement_of,
    table,
)
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.machine import cores

if TYPE_CHECKING:
    from rich.table import Table

    from fedstil_mpi.federation.plan import Plan
    from fedstil_mpi.planning.forecast import Forecast


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser("fedstil_mpi.plan", "Say what a run would do, without running anything.")
    parser.add_argument("config", help="a YAML file; see configs/")
    parser.add_overrides("come after the file")
    parser.add_argument(
        "--ranks", type=int, metavar="N", help="of the run; default: a server and a rank for each client"
    )
    parser.add_argument("--json", action="store_true", help="for tools: sizes in bytes")
    parser.help_first(arguments)

    def plan() -> None:
        options = parser.parse(arguments)
        show(options.config, options.overrides, options.ranks, as_json=options.json)

    cli_main(plan)


def show(config: str, overrides: list[str], ranks: int | None, *, as_json: bool) -> None:
    """Print the plan on standard output. Raises InputError as a run of this config would."""
    source = loading.read(config, overrides)
    draft = loading.resolve(source)
    methods.check_name(draft.method.name)
    stream = open_stream(draft.data, draft.seed)
    placements = table(placement(stream.clients, stream.clients + 1 if ranks is None else ranks, draft.placement))

    from fedstil_mpi.data.inspection.remarks import remarks
    from fedstil_mpi.federation import effects
    from fedstil_mpi.federation.plan import make_plan
    from fedstil_mpi.planning import forecast, limits, plan_tables
    from fedstil_mpi.planning.resident import libraries
    from fedstil_mpi.results.writing import summary
    from fedstil_mpi.util import terminal

    method, experiment = methods.resolve(source)
    effects.check_effects(experiment, method)
    plan = make_plan(experiment, method, stream)
    before = libraries(draft.model.backbone)
    predicted = forecast.make(plan, stream, placements)
    if as_json:
        print(json.dumps(predicted.as_json(), indent=2))
        return
    console = terminal.console()
    console.print(summary.headline(experiment, plan.schedule), soft_wrap=True)
    for line in (*plan_tables.place_lines(predicted), *plan_tables.warnings(predicted)):
        console.print(line, soft_wrap=True)
    if found := limits.needs(predicted, before, experiment.folder.parent):
        console.print(limits.line(found), soft_wrap=True)
    for line in remarks(stream):
        terminal.show(line)
    for title, content in _tables(plan, predicted, before).items():
        console.print(f"\n{title}", style="bold")
        console.print(content)


def _tables(plan: "Plan", predicted: "Forecast", before: int) -> "dict[str, Table]":
    """By title. before: bytes of the libraries that are loaded before there is anything of a run."""
    from fedstil_mpi.planning import pace, plan_tables
    from fedstil_mpi.results.writing import summary

    placements = predicted.placements
    at_most = " (at most)" if predicted.at_most else ""
    tables = {
        f"Placement of {len(placements)} ranks if all were on this host": (
            summary.placement_table(placements, predicted.places)
        ),
        f"What crosses the edge links, by round{at_most}": plan_tables.rounds_table(predicted),
        "What crosses the edge links, by kind": plan_tables.kinds_table(predicted),
        "By client, with the images that pass the stem, the tail in training, the tail in search": (
            plan_tables.clients_table(predicted)
        ),
        f"Memory by rank (MB, about), with {before / 1e6:.0f} MB of libraries, without importances and masks": (
            plan_tables.memory_table(predicted, before)
        ),
        "Disk (about)": plan_tables.files_table(predicted),
    }
    if all(row["device"] == "cpu" for row in placements):
        title = "CPU seconds by rank in the networks, at the pace of this host (about), without messages and mixing"
        tables[title] = plan_tables.seconds_table(predicted, pace.measure(plan))
    return tables


def placement(clients: int, ranks: int, placement: Placement) -> list[RankPlacement]:
    """The placement of a run's ranks if all were on this host. Raises InputError where they cannot."""
    if ranks < 1:
        raise InputError(f"--ranks {ranks}; expected at least 1")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus, no_gpu = ([], "device: cpu") if placement.device == "cpu" else find_gpus(visible)
    host, own = platform.node(), cores()
    offers = [
        HostResources(rank, 0, host, rank, list(of_rank), own, [[gpu.id, gpu.name] for gpu in gpus], no_gpu)
        for rank, of_rank in enumerate(assign_clients(clients, ranks))
    ]
    return [
        placement_of(
            offer,
            choose_gpu(offers, offer.rank, placement.device, placement.gpus_per_node),
            choose_threads(offers, offer.rank, placement.threads, os.environ),
        )
        for offer in offers
    ]


if __name__ == "__main__":
    gc.disable()  # what a plan makes stays to its end: a fifth of its time would go into looking for garbage
    main()
