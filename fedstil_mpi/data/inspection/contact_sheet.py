"""A stream at one glance: a picture with a row for each client, a few people of each task side by side."""

from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fedstil_mpi.data.streams.base import SPLITS, Images, Stream, Task

HEIGHT = 64
"""Pixels of an image on the sheet."""
PEOPLE, CLIENTS, TASKS = 3, 16, 8
"""At most so many are shown: people of a task, clients, tasks."""
FRAME, GAP, MARGIN, LEFT, TOP = 2, 10, 12, 78, 62
COLOURS = {"train": "#2a78d6", "query": "#e08a00", "gallery": "#2e9e5b"}
INK, MUTED, PAPER, EMPTY = "#111111", "#666666", "#ffffff", "#eeeeee"


def draw(stream: Stream, path: Path) -> None:
    """Writes the sheet as a PNG. Of each person it has an image to train on, a query, and one of the gallery.

    Each has a frame in the colour of its split; an empty field: the person has none. Raises InputError where the stream
    cannot be read, OSError where the sheet cannot be written.
    """
    clients, tasks = min(stream.clients, CLIENTS), min(stream.tasks, TASKS)
    width = max(1, round(HEIGHT * _aspect(stream)))
    strip = 3 * (width + 2 * FRAME)
    cell = PEOPLE * (strip + GAP // 2) + GAP
    line = HEIGHT + 2 * FRAME + GAP
    sheet = Image.new("RGB", (LEFT + tasks * cell + MARGIN, TOP + clients * line + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    _heading(pen, stream, clients, tasks)
    for number in range(tasks):
        pen.text((LEFT + number * cell, TOP - 20), f"task {number}", INK, _font(13))
    for client in range(clients):
        top = TOP + client * line
        pen.text((MARGIN, top + line // 2 - 14), f"client {client}", INK, _font(13))
        for number in range(tasks):
            for place, shown in enumerate(_people(stream.task(client, number))):
                left = LEFT + number * cell + place * (strip + GAP // 2)
                for which, split in enumerate(SPLITS):
                    corner = left + which * (width + 2 * FRAME), top
                    _paste(sheet, pen, corner, width, shown.get(split), COLOURS[split])
    sheet.save(path, format="PNG")


def _heading(pen: ImageDraw.ImageDraw, stream: Stream, clients: int, tasks: int) -> None:
    """What is shown, and which colour means what."""
    limits = [
        f"the first {shown} of {total} {what}"
        for shown, total, what in ((clients, stream.clients, "clients"), (tasks, stream.tasks, "tasks"))
        if shown < total
    ]
    left = MARGIN
    for split, colour in COLOURS.items():
        pen.rectangle((left, MARGIN + 2, left + 12, MARGIN + 14), fill=colour)
        pen.text((left + 18, MARGIN), split, INK, _font(13))
        left += 84
    pen.text((left, MARGIN), "; ".join(limits), MUTED, _font(13))


def _people(task: Task) -> Iterator[dict[str, np.ndarray]]:
    """The pixels of a few people by split: first those who are trained on and searched for, then some of either."""
    trained, searched = (np.unique(images.pids).tolist() for images in (task.train, task.query))
    both = sorted(set(trained) & set(searched))
    order = dict.fromkeys(chain(both, *zip_longest(trained, searched)))
    order.pop(None, None)
    for person in list(order)[:PEOPLE]:
        rows = {split: np.flatnonzero(getattr(task, split).pids == person) for split in SPLITS}
        if len(rows["query"]):  # a match as retrieval counts it: seen by another camera, if there is one
            camera = task.query.cameras[rows["query"][0]]
            others = rows["gallery"][task.gallery.cameras[rows["gallery"]] != camera]
            rows["gallery"] = others if len(others) else rows["gallery"]
        yield {split: getattr(task, split).pixels[where[0]] for split, where in rows.items() if len(where)}


def _paste(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    width: int,
    pixels: np.ndarray | None,
    colour: str,
) -> None:
    left, top = corner
    frame = (left, top, left + width + 2 * FRAME - 1, top + HEIGHT + 2 * FRAME - 1)
    pen.rectangle(frame, fill=EMPTY if pixels is None else colour)
    if pixels is not None:
        image = Image.fromarray(pixels).resize((width, HEIGHT), Image.Resampling.BILINEAR)
        sheet.paste(image, (left + FRAME, top + FRAME))


def _aspect(stream: Stream) -> float:
    """Width by height of the stream's images."""
    images: Images = stream.task(0, 0).train
    return images.pixels.shape[2] / images.pixels.shape[1]


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
