"""Write the features of a client's queries and galleries, as other programs, such as faiss, search them.

    python -m fedstil_mpi.features runs/x --client 0 --output features.h5

The model is the one that the client of a run folder ended with (save_models=true), with --view local the one before the last
exchange; of a config file the start model. Features are as the run has compared them, after an exchange of prototypes with
norms for other cameras and by a metric across cameras; the model's own with prototypes.norms=0 prototypes.metric=false. HDF5, or NumPy's
format where the name ends in .npz: for query and gallery each `features` (float32 [n, F], of length 1, so that the inner
product is the cosine), `pids` (the people's own ids), `cameras` (-1: unknown) and `tasks` (int64 [n] each), task by task.
Works on the CPU, without MPI. Exit code 2: the input cannot be used, and one line says why.
"""

from argparse import Namespace
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np

from fedstil_mpi.config.command_line import Parser, cli_main, integer
from fedstil_mpi.evaluation import matches
from fedstil_mpi.models.files import VIEWS
from fedstil_mpi.results.reading.networks import check_chosen, kept_comparison, kept_model, load_network, reopen
from fedstil_mpi.util import terminal
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.files import expanded, writable, write

FORMATS = (".h5", ".npz")
SPLITS = ("query", "gallery")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser("fedstil_mpi.features", "Write the features of a client's queries and galleries.")
    parser.add_argument("config", type=expanded, help="a run folder, or a YAML file")
    parser.add_overrides("come after the file")
    parser.add_argument("--client", type=int, required=True)
    parser.add_argument("--tasks", type=integer, nargs="+", metavar="N", help="from 0; default: all")
    parser.add_argument("--view", choices=VIEWS, default=VIEWS[0], help="which of the client's last two models")
    parser.add_argument("--output", type=expanded, required=True, help="a file: .h5 or .npz")
    parser.help_first(arguments)
    cli_main(lambda: write_features(parser.parse(arguments)))


def write_features(options: Namespace) -> None:
    """Raises InputError where the config, the model or the output cannot be used."""
    if options.output.suffix not in FORMATS:
        raise InputError(f"--output {options.output}; expected a name that ends in {' or '.join(FORMATS)}")
    if not options.output.parent.is_dir():
        raise InputError(f"--output {options.output}: {options.output.parent} is no folder; make it, or choose another")
    run = reopen(options.config, options.overrides)
    check_chosen("--client", [options.client], run.stream.clients, "clients")
    check_chosen("--tasks", options.tasks or [], run.stream.tasks, "tasks")
    model = kept_model(options.config, options.client, options.view) if options.config.is_dir() else None
    network = load_network(run.plan, run.stream, model)
    comparison = kept_comparison(run.plan, options.config, options.client, options.view, network)
    parts: dict[str, list[np.ndarray]] = {}
    for number in dict.fromkeys(options.tasks or range(run.stream.tasks)):
        task = run.original.task(options.client, number)
        for split in SPLITS:
            images = getattr(task, split)
            found = {
                "features": matches.features(network, images, comparison).numpy().astype(np.float32),
                "pids": images.pids,
                "cameras": images.cameras,
                "tasks": np.full(len(images), number),
            }
            for name, values in found.items():
                parts.setdefault(f"{split}/{name}", []).append(values)
    arrays = {name: np.concatenate(of_tasks) for name, of_tasks in parts.items()}
    with writable(options.output, "choose another --output"):
        write(options.output, _bytes(arrays, options.output))
    counts = " and ".join(f"{len(arrays[f'{split}/pids'])} {split}" for split in SPLITS)
    terminal.show(f"features of {counts} images in {options.output}")


def _bytes(arrays: dict[str, np.ndarray], path: Path) -> bytes:
    memory = BytesIO()
    if path.suffix == ".npz":
        np.savez(memory, **{name.replace("/", "_"): values for name, values in arrays.items()})  # type: ignore[arg-type]
    else:
        with h5py.File(memory, "w") as file:
            for name, values in arrays.items():
                file[name] = values
    return memory.getvalue()


if __name__ == "__main__":
    main()
