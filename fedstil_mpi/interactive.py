"""Runs and comparisons from Python, as in a notebook: in this process alone, on its CPU cores or its GPU.

    from fedstil_mpi.interactive import compare, run

    found = run("configs/quickstart.yaml", {"seed": 2, "method.name": "fedavg"})
    found.of("served").final["rank1"]  # percent, by client

What is returned is read from the run folder, as `fedstil_mpi.results.reading` reads it at any later time. Results are those
of the same command, on any number of ranks.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedstil_mpi import compare as comparing
from fedstil_mpi.comm.alone import alone
from fedstil_mpi.config import loading
from fedstil_mpi.config.files import as_argument
from fedstil_mpi.report import Comparison
from fedstil_mpi.results.reading import runs
from fedstil_mpi.results.reading.runs import Run
from fedstil_mpi.run import execute
from fedstil_mpi.util.terminal import Detail

Settings = Mapping[str, Any]
"""{"section.key": value}, above the config file."""


def run(config: str | Path, settings: Settings | None = None, *, resume: bool = False, detail: Detail = "brief") -> Run:
    """Run the experiment of a config file, as `python -m fedstil_mpi.run` does, and return its results.

    resume: go on with the run of this name where it was interrupted; one that is complete is returned as it is. detail: how
    much is printed. Raises InputError where the input cannot be used, or the folder holds a run already.
    """
    source = loading.read(config, [*_overrides(settings), *(["resume=auto"] if resume else [])])
    experiment = loading.resolve(source)
    with alone() as world:
        execute(world, source, detail=detail)
    return runs.read(experiment.folder)


def compare(
    config: str | Path,
    settings: Settings | None = None,
    *,
    seeds: Sequence[int] | None = None,
    only: Sequence[str] | None = None,
    detail: Detail = "brief",
) -> Comparison:
    """Run what is not complete yet of a comparison, as `python -m fedstil_mpi.compare` does, and return its variants.

    settings: for every run. seeds, only (labels): instead of the file's. The report lies beside the runs. Raises InputError
    where the input cannot be used.
    """
    overrides = _overrides(settings)
    plan = comparing.read(str(config), overrides)
    entries = comparing.expand(plan, str(config), overrides, seeds, only)
    with alone() as world:
        comparing.compare(world, entries, lambda: False, detail)
    comparing.write_labels(entries)
    return comparing.report_on(plan, entries)


def _overrides(settings: Settings | None) -> list[str]:
    return [as_argument(key, value) for key, value in (settings or {}).items()]
