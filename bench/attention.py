"""What FedSTIL's attention takes, from whom and from which of their tasks, and what it matters that tasks are counted by age.

    .venv/bin/python bench/attention.py configs/quickstart.yaml configs/places.yaml --output bench/attention.md

Relevance by overlap is made of the people that clients have met, so that nothing need be trained: each client's tasks are
told to the server's own code one after the other, all clients at the same pace. Beside the page it writes a heat map.
"""

import argparse
from pathlib import Path

import numpy as np
import pages
import torch
from matplotlib.figure import Figure

from fedstil_mpi.config import loading
from fedstil_mpi.data.sources import open_stream
from fedstil_mpi.data.streams.base import Stream
from fedstil_mpi.methods.fedstil.attention import Weights
from fedstil_mpi.methods.fedstil.method import PRESETS, Options
from fedstil_mpi.methods.fedstil.mixing import Attention
from fedstil_mpi.util.tables import markdown

BY_AGE = (0.8, 0.5)
"""Values of method.forgetting that are held against 1, by which all tasks count alike."""

PAGE = """# Attention over space and time

    {command}

By default {mean_share:.0%} of every base is the plain mean of all clients, the rest is attention by the overlap of people met, and all
tasks count alike (`method.forgetting` 1). Where a person counts less with every task since it was last met (0.8, 0.5), this share of
a base's weight goes to other clients than before, mean over clients; on average over the tasks, and after the one where it is most:

{table}

*Partners*: other clients with whom a client has people in common, on average at the end. Where there is one, how much its tasks
count decides only how far it is preferred to the plain mean. So on these streams attention over time hardly matters.

![From which task of whom]({picture})

What each client of {name} takes from others at the end beside the plain mean and itself, by the task in which they last met the
people in common (rows: who takes; columns: from which client, and which task).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", help="the heat map is of the first")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    experiments = [loading.resolve(loading.read(c, ["method.name=fedstil"]), Options, PRESETS) for c in options.configs]
    first, picture, rows = experiments[0], options.output.with_suffix(".png"), []
    for experiment in experiments:
        stream = open_stream(experiment.data, experiment.seed)
        by_forgetting = {value: after_each_task(stream, experiment.method.options, value) for value in (1.0, *BY_AGE)}
        rows += [row(experiment.name, by_forgetting, value) for value in BY_AGE]
        if experiment is first:
            draw(stream, by_forgetting[1.0][-1], picture)
    head = ["stream", "partners", "forgetting", "on average", "at worst"]
    table = markdown(head, rows)
    of_first = {"picture": picture.name, "name": first.name, "mean_share": first.method.options.mean_share}
    pages.show(PAGE.format(**pages.made_by(), table=table, **of_first), options.output)


def after_each_task(stream: Stream, options: Options, forgetting: float) -> list[Weights]:
    """How much each client takes from each other one, once all have met the people of tasks 0, 1, ..."""
    attention = Attention(
        stream.clients, "overlap", options.tau, forgetting, options.self_weight, options.mean_share, options.step
    )
    everybody, weights = range(stream.clients), []
    for task in range(stream.tasks):
        for client in everybody:
            attention.history.note(client, True, people(stream, client, task), None)
        weights.append(attention.weights(everybody))
    return weights


def people(stream: Stream, client: int, task: int) -> frozenset[int]:
    return frozenset(stream.labels(client, task)["train"].tolist())


def row(name: str, by_forgetting: dict[float, list[Weights]], forgetting: float) -> list[str]:
    """Half the sum of absolute differences is what goes to another client than with forgetting 1."""
    everybody = list(range(len(by_forgetting[1.0][0].mean_O)))
    rows_TKK, plain_TKK = (
        torch.stack([weights.rows(everybody) for weights in by_forgetting[value]]) for value in (forgetting, 1.0)
    )
    moved_T = (rows_TKK - plain_TKK).abs().sum(2).mean(1) / 2
    others_KK = by_forgetting[1.0][-1].beside_OK.clone().fill_diagonal_(0)
    partners = (others_KK > 0).sum(1).float().mean()
    return [name, f"{partners:.1f}", str(forgetting), f"{moved_T.mean():.1%}", f"{moved_T.max():.1%}"]


def draw(stream: Stream, weights: Weights, picture: Path) -> None:
    """What each client takes from others beside the plain mean, by the task in which those last met the people in common."""
    met = [[people(stream, client, task) for task in range(stream.tasks)] for client in range(stream.clients)]
    taken = np.zeros((stream.clients, stream.clients, stream.tasks))
    for i, j in np.ndindex(taken.shape[:2]):
        in_common = frozenset().union(*met[i]) & frozenset().union(*met[j])
        if i == j or not in_common:
            continue
        last_met = [max(task for task in range(stream.tasks) if person in met[j][task]) for person in in_common]
        taken[i, j] = float(weights.beside_OK[i, j]) * np.bincount(last_met, minlength=stream.tasks) / len(in_common)
    figure = Figure(
        figsize=(1 + 0.25 * stream.clients * stream.tasks, 1.2 + 0.4 * stream.clients), layout="constrained"
    )
    axes = figure.subplots()
    image = axes.imshow(taken.reshape(stream.clients, -1), cmap="Blues", vmin=0, aspect="auto")
    places = np.arange(stream.clients) * stream.tasks
    axes.set_xticks(places + (stream.tasks - 1) / 2, [f"client {client}" for client in range(stream.clients)])
    axes.set_yticks(range(stream.clients))
    for place in places[1:]:
        axes.axvline(place - 0.5, color="grey", linewidth=0.5)
    axes.set_xlabel(f"taken from, tasks 0 to {stream.tasks - 1} of each")
    axes.set_ylabel("who takes")
    figure.colorbar(image, label="share of the base")
    figure.savefig(picture, dpi=120)


if __name__ == "__main__":
    main()
