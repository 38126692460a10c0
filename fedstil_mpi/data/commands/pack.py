"""pack: any stream that a config names -> a pack."""

import argparse
import json
from dataclasses import asdict
from typing import Any

import fedstil_mpi
from fedstil_mpi.config import loading
from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.data.building.disk_space import make_folder
from fedstil_mpi.data.commands import tables
from fedstil_mpi.data.pack import PackStream
from fedstil_mpi.data.pack.packing import pack_stream
from fedstil_mpi.data.sources import open_original
from fedstil_mpi.util import plugins, terminal
from fedstil_mpi.util.files import expanded
from fedstil_mpi.util.progress import shown


def add(commands: Any) -> None:
    description = (
        "Put the stream that a config names into a pack: its data section and seed decide, all else is ignored."
    )
    parser = commands.add_parser("pack", help="any stream that a config names -> a pack", description=description)
    parser.add_argument("config", help="a YAML file; see configs/")
    parser.add_overrides("come after the file")
    parser.add_argument("--out", required=True, type=expanded, metavar="PACK", help="the new file")


def run(given: argparse.Namespace) -> None:
    experiment = loading.resolve(loading.read(given.config, given.overrides))
    data, out = experiment.data, given.out
    stream = open_original(data, experiment.seed)
    make_folder(out)
    watch = shown("packing", stream.clients * stream.tasks, "tasks")
    size = {"height": data.height, "width": data.width}
    pack_stream(stream, out, **size, about=_about(experiment), label=plugins.label(data.kind), watch=watch)
    plan = PackStream(out).plan()
    terminal.console().print(tables.by_client(plan))
    ending = f"{out.stat().st_size / 1e6:,.1f} MB"
    terminal.show(f"{out}: {tables.headline(plan)}; {ending}")


def _about(experiment: Experiment) -> dict[str, str]:
    """Where the stream comes from, without what differs from machine to machine."""
    data = asdict(experiment.data)
    del data["path"]
    data["kind"] = plugins.label(experiment.data.kind)
    if experiment.data.kind != "synthetic":
        del data["synthetic"]
    return {
        "program": f"fedstil_mpi {fedstil_mpi.__version__}, pack",
        "data": json.dumps(data, sort_keys=True),
        "seed": str(experiment.seed),
    }
