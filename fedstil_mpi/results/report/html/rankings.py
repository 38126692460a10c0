"""Ranking lists: queries with their first answers before and after the last exchange, as people of the field know them.

Made from the models that a run has kept and from its images, so it takes torch and where the config's images are.
"""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from fedstil_mpi.data.streams.base import Task
from fedstil_mpi.results.reading.runs import Run

QUERIES = 6
"""Of a client: evenly spaced among all of its tasks', whatever becomes of them."""
ANSWERS = 10
HEIGHT = 96
"""Pixels of a picture."""


def rankings(run: Run, clients: Sequence[int]) -> list[dict[str, Any]]:
    """A dict for each query of each client, to be shown. Raises InputError where models or images are not there."""
    from fedstil_mpi.evaluation.matches import similarities
    from fedstil_mpi.models.files import VIEWS, load_tail
    from fedstil_mpi.results.reading.networks import check_chosen, kept_comparison, kept_model, load_network, reopen

    found = []
    opened = reopen(run.folder)
    check_chosen("--rankings", clients, run.clients, "clients")
    market = opened.plan.experiment.evaluation.protocol == "market"
    network = None
    for client in clients:
        files = {view: kept_model(run.folder, client, view) for view in reversed(VIEWS)}
        network = network or load_network(opened.plan, opened.stream, files["served"])
        for number, task, queries in chosen([opened.original.task(client, task) for task in range(run.tasks)]):
            alike = {}
            for view, file in files.items():
                load_tail(file, network.tail)
                comparison = kept_comparison(opened.plan, run.folder, client, view, network)
                alike[view] = similarities(network, task, comparison)
            for query in queries:
                lists = {view: answers(task, query, of[query], market) for view, of in alike.items()}
                shown = {"picture": picture(task.query.pixels[query]), "person": int(task.query.pids[query])}
                found.append({"client": client, "task": number, "query": query, **shown, **lists})
    return found


def chosen(tasks: Sequence[Task]) -> Iterator[tuple[int, Task, list[int]]]:
    """Tasks by number with some of their queries."""
    all_queries = [(number, query) for number, task in enumerate(tasks) for query in range(len(task.query))]
    places = np.linspace(0, len(all_queries) - 1, min(QUERIES, len(all_queries))).round().astype(int)
    for number, task in enumerate(tasks):
        queries = [all_queries[place][1] for place in places if all_queries[place][0] == number]
        if queries:
            yield number, task, queries


def answers(task: Task, query: int, similarity: Any, market: bool) -> list[dict[str, Any]]:
    """The first answers, in their order, and whether each is right. similarity: float64 [gallery]."""
    from fedstil_mpi.evaluation.matches import nearest

    order = nearest(task, query, similarity, market)[:ANSWERS]
    right = task.gallery.pids[order] == task.query.pids[query]
    pictures = [picture(task.gallery.pixels[image]) for image in order]
    return [{"picture": one, "right": bool(good)} for one, good in zip(pictures, right, strict=True)]


def picture(pixels: np.ndarray) -> str:
    """A small JPEG of uint8 [height, width, 3], as the address of an image in a page."""
    height, width, _ = pixels.shape
    memory = BytesIO()
    Image.fromarray(pixels).resize((max(1, HEIGHT * width // height), HEIGHT)).save(memory, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{b64encode(memory.getvalue()).decode()}"
