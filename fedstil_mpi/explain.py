"""Show what in two images makes a model take them for the same person: heat maps for chosen queries of a task.

    python -m fedstil_mpi.explain runs/x --client 0 --task 2 --images 0 3 5 --output heat
    python -m fedstil_mpi.explain configs/quickstart.yaml seed=2 --client 0 --task 2 --images 0 --output heat

For each query a picture with its best true and its best false match in the task's gallery, and a line for each match in
explain.csv. The model is the one that a client of a run folder ended with (or another file: --model), or else a config's
start model, warm-up included. Works on the CPU, without MPI. Exit code 2: the input cannot be used, and one line says why.
"""

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fedstil_mpi.client.representations import normalise
from fedstil_mpi.config.command_line import Parser, cli_main, integer
from fedstil_mpi.data.streams.base import Task
from fedstil_mpi.evaluation.gradcam import default_layer, heat, likeness
from fedstil_mpi.evaluation.matches import Match, best, similarities
from fedstil_mpi.models.network import Network
from fedstil_mpi.results.reading.networks import check_chosen, kept_model, load_network, reopen
from fedstil_mpi.results.report import explanation
from fedstil_mpi.results.report.explanation import Shown
from fedstil_mpi.results.report.tables import write_csv
from fedstil_mpi.util import lease, terminal
from fedstil_mpi.util.files import atomic, expanded, writable


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser("fedstil_mpi.explain", "Show what makes a model take two images for the same person.")
    parser.add_argument("config", type=expanded, help="a run folder, or a YAML file")
    parser.add_overrides("come after the file")
    parser.add_argument("--client", type=int, required=True)
    parser.add_argument("--task", type=int, required=True, help="from 0")
    parser.add_argument(
        "--images", type=integer, nargs="+", required=True, metavar="N", help="queries of the task, from 0"
    )
    parser.add_argument(
        "--model", type=expanded, help="safetensors file of a tail; default: the client's in a run folder"
    )
    parser.add_argument("--layer", help="stage whose map is shown; default: the last that is not too coarse")
    parser.add_argument("--output", type=expanded, required=True, help="folder for the pictures and explain.csv")
    parser.help_first(arguments)
    cli_main(lambda: explain(parser.parse(arguments)))


def explain(options: Namespace) -> None:
    """Raises InputError where the config, the model or the choice of images cannot be used."""
    in_folder = options.config.is_dir()
    run = reopen(options.config, options.overrides)
    check_chosen("--client", [options.client], run.stream.clients, "clients")
    check_chosen("--task", [options.task], run.stream.tasks, "tasks")
    task = run.original.task(options.client, options.task)
    check_chosen("--images", options.images, len(task.query), "queries")
    model = options.model or (kept_model(options.config, options.client) if in_folder else None)
    network = load_network(run.plan, run.stream, model)

    layer = options.layer or default_layer(network, task.query.pixels.shape[1:3])
    similarity = similarities(network, task)
    market = run.plan.experiment.evaluation.protocol == "market"
    rows: list[dict[str, Any]] = []
    with writable(options.output, "choose another --output"), lease.held(options.output):
        for query in options.images:
            matches = best(task, query, similarity[query], market)
            found = [show(network, task, query, match, layer) for match in matches]
            with atomic(options.output / f"query-{query}.png") as partial:
                explanation.draw(task, query, found).savefig(partial, format="png", dpi=150)
            rows += [explanation.row(task, query, shown) for shown in found]
        write_csv(options.output / "explain.csv", rows)
    terminal.show(f"pictures of {layer} for {len(options.images)} queries, and explain.csv, in {options.output}")


def show(network: Network, task: Task, query: int, match: Match, layer: str) -> Shown:
    pixels = np.stack([task.query.pixels[query], task.gallery.pixels[match.gallery]])
    why = likeness(network, normalise(torch.from_numpy(pixels)), layer)
    return Shown(match, why.cosine, heat(why.evidence, pixels.shape[1:3]).numpy())


if __name__ == "__main__":
    main()
