"""Milliseconds of what a client computes, beside the same arithmetic in a bare loop, and of messages beside MPI's own, as Markdown.

    .venv/bin/python bench/speed.py --output bench/speed.md

All pairs are timed in turns: what is computed in CPU time on one core, messages in wall time.
"""

import argparse
import json
import os
import subprocess
from collections.abc import Callable, Sequence
from itertools import repeat
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pages
import torch
from torch import Tensor, nn

from fedstil_mpi.client.batches import Batch
from fedstil_mpi.client.epochs import ReferenceRate
from fedstil_mpi.client.local_training import LocalTraining
from fedstil_mpi.client.rehearsal import Samples
from fedstil_mpi.config.schema import Train
from fedstil_mpi.models.losses import smoothed_cross_entropy
from fedstil_mpi.models.network import Network, build, trainable_parameters
from fedstil_mpi.models.precision import autocast
from fedstil_mpi.util.tables import markdown

IMAGES = 64
"""In a batch."""
STEPS = 4
LR = 1e-5
CLIENTS, SCALARS = 5, 12_500_000
"""Whose messages are timed, and of how many float32."""
RANKS = (3, 6)


class Case(NamedTuple):
    """A model on images of one size."""

    name: str
    backbone: str
    size: tuple[int, int]
    last_stride: int
    people: int
    split: str | None = None


CASES = (
    Case("quickstart", "resnet18", (64, 32), 2, 250),
    Case("PKU-Reid", "mobilenet_v2", (128, 64), 2, 114, "features.14"),
    Case("128x64, 8,000 people", "resnet18", (128, 64), 1, 8000),
)

PAGE = """# Speed: what a client computes, and messages

    {command}

{machine}, Python {python}, torch {torch}, one thread. CPU milliseconds of {images} images, median of {repeats}, what is compared in
turns. *Stem*: the frozen layers one after the other, and in the form that a run uses (`models/inference.py`). *Step*: of local
training (`client/local_training.py`, cross entropy only) beside a bare loop of the same tail, loss and fused Adam. *Search*:
features of images by the tail.

{table}

## Messages

{clients} clients' {scalars:,} float32 each, from rank 0 and to it (`comm/mpi_exchange.py`, with barrier and ledger), beside MPI's own
Scatterv and Gatherv of as many bytes between the same ranks. Wall milliseconds until the last rank has them; *ratio*: the median of
{turns} pairs, one after the other. Other work on the machine disturbs the medians.

{exchange}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--turns", type=int, default=25, help="of messages")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row(case, precision, options.repeats) for case in CASES for precision in ("float32", "bfloat16")]
    page = PAGE.format(
        **pages.made_by("torch"),
        images=IMAGES,
        repeats=options.repeats,
        table=markdown(["", "precision", "stem, layers", "stem", "step, bare", "step", "bare / step", "search"], rows),
        clients=CLIENTS,
        scalars=SCALARS,
        turns=options.turns,
        exchange=markdown(
            ["ranks", "", "median", "bare", "ratio", "best", "bare", "ratio"],
            [line for ranks in RANKS for line in messages(ranks, options.turns)],
        ),
    )
    pages.show(page, options.output)


def row(case: Case, precision: str, repeats: int) -> list[str]:
    network = build(
        case.backbone,
        num_classes=case.people,
        image_size=case.size,
        split=case.split,
        last_stride=case.last_stride,
        precision=precision,
    )
    images = torch.randn(IMAGES, 3, *case.size, generator=torch.Generator().manual_seed(1))
    layers, stem = in_turns([lambda: plainly(network, images), lambda: network.stem(images)], repeats)
    with torch.no_grad():
        samples = Samples(network.stem(images), torch.arange(IMAGES) % 32, torch.arange(IMAGES) % 32)
    bare, step = in_turns([bare_loop(network, samples), local_training(network, samples)], repeats)
    bare, step = bare / STEPS, step / STEPS
    (search,) = in_turns([lambda: network.tail.eval().features(samples.representations)], repeats)
    times = [f"{milliseconds:.1f}" for milliseconds in (layers, stem, bare, step)]
    return [case.name, precision, *times, f"{bare / step:.2f}", f"{search:.1f}"]


def plainly(network: Network, images: Tensor) -> Tensor:
    with autocast(images.device, network.stem.precision):
        return nn.Sequential.forward(network.stem, images)


def bare_loop(network: Network, samples: Samples) -> Callable[[], None]:
    """STEPS of training, as short as they can be written."""

    def train() -> None:
        optimizer = torch.optim.Adam(trainable_parameters(network.tail).values(), LR, fused=True)
        for _ in range(STEPS):
            scores, _ = network.tail.train()(samples.representations)
            optimizer.zero_grad()
            smoothed_cross_entropy(scores, samples.pids, 0.1).backward()
            optimizer.step()

    return torch.enable_grad()(train)


def local_training(network: Network, samples: Samples) -> Callable[[], None]:
    """STEPS as clients take them."""
    batch = Batch(samples, torch.full((IMAGES,), -1))

    def train() -> None:
        training = LocalTraining(network.tail, Train(steps=STEPS, lr=LR), ReferenceRate(LR))
        training.run(lambda epoch: repeat(lambda: batch), None, lambda *given: None, None)

    return torch.enable_grad()(train)


def messages(ranks: int, turns: int) -> list[list[str]]:
    """Of one job."""
    script = Path(__file__).with_name("exchange_ranks.py")
    command = [*pages.on_ranks(ranks), str(script), str(CLIENTS), str(SCALARS), str(turns)]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True, check=True
    )
    seconds = json.loads(done.stdout.splitlines()[-1])
    return [[str(ranks), way, *compared(seconds[way], seconds[f"bare {way}"])] for way in ("down", "up")]


def compared(seconds: Sequence[float], bare: Sequence[float]) -> list[str]:
    """Median and best in milliseconds, each beside the bare one's and over it."""
    typical = [1000 * median(seconds), 1000 * median(bare), median(s / b for s, b in zip(seconds, bare, strict=True))]
    best = [1000 * min(seconds), 1000 * min(bare), min(seconds) / min(bare)]
    return [
        text for ours, theirs, ratio in (typical, best) for text in (f"{ours:.0f}", f"{theirs:.0f}", f"{ratio:.2f}")
    ]


def in_turns(works: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """As `pages.in_turns`; without gradients unless the work asks for them."""
    with torch.no_grad():
        return pages.in_turns(works, repeats, first=2)


if __name__ == "__main__":
    main()
