"""What an explanation of a query looks like: a picture, and numbers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from fedstil_mpi.data.streams.base import Images, Task
from fedstil_mpi.evaluation.matches import Match


class Shown(NamedTuple):
    """A match with what explains it."""

    match: Match
    cosine: float
    heat: np.ndarray
    """float32 [2, height, width] from 0 to 1, of query and match."""


def draw(task: Task, query: int, found: Sequence[Shown]) -> Figure:
    """A row for each match: the query, its heat map, the match, its heat map."""
    height, width = task.query.pixels.shape[1:3]
    figure = Figure(figsize=(7.2, (1.7 * height / width + 0.6) * len(found)), layout="constrained")
    grid = figure.subplots(len(found), 4, squeeze=False)
    for axes, (match, cosine, maps) in zip(grid, found, strict=True):
        titles = (
            f"query {query}: person {task.query.pids[query]}",
            f"for the {match.kind} match",
            f"gallery {match.gallery}: person {task.gallery.pids[match.gallery]}",
            f"cosine {cosine:.3f}, rank {match.rank}",
        )
        pictures = (task.query.pixels[query], task.gallery.pixels[match.gallery])
        for column, title in enumerate(titles):
            axes[column].imshow(pictures[column // 2])
            if column % 2:
                axes[column].imshow(maps[column // 2], cmap="inferno", vmin=0, vmax=1, alpha=0.6)
            axes[column].set_title(title, fontsize=8)
            axes[column].set_axis_off()
    return figure


def row(task: Task, query: int, shown: Shown) -> dict[str, Any]:
    """A line of explain.csv; the hottest places are pixels from the top left."""
    match, cosine, maps = shown
    line = {"query": query, **_labels(task.query, query), "match": match.kind, "gallery": match.gallery}
    line |= {f"gallery_{key}": value for key, value in _labels(task.gallery, match.gallery).items()}
    line |= {"cosine": cosine, "rank": match.rank}
    for name, of_image in zip(("query", "gallery"), maps, strict=True):
        y, x = np.unravel_index(of_image.argmax(), of_image.shape)
        line |= {f"{name}_hottest_y": int(y), f"{name}_hottest_x": int(x)}
    return line


def _labels(images: Images, index: int) -> dict[str, int]:
    return {"person": int(images.pids[index]), "camera": int(images.cameras[index])}
