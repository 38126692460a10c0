"""What codecs of weights take, lose and cost, as Markdown.

    .venv/bin/python bench/codecs.py --output bench/codecs.md

Encodes and decodes a Gaussian vector in the layouts of two tails, on one core, beside what a client trains in a round.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pages
import torch
from speed import IMAGES, STEPS, in_turns, local_training
from torch import Tensor

from fedstil_mpi.client.rehearsal import Samples
from fedstil_mpi.comm.flat import Layout
from fedstil_mpi.comm.lossy import LossyCodec, groups
from fedstil_mpi.config.schema import Train
from fedstil_mpi.config.sections import LOSSY
from fedstil_mpi.models.network import adaptive_parameters, build
from fedstil_mpi.util.tables import markdown

DEAD_ZONES = (1.2, 1.5)
ROUND = Train().steps
"""Steps that a client trains in a round."""

PAGE = """# Codecs: bits, what they miss, milliseconds

    {command}

{machine}, Python {python}, torch {torch}, one thread. The travelling weights of two tails, filled with Gaussian numbers: movements
of weights under Adam are nearly so. *Bits*: of a payload by scalar, scales and checksum included. *Missed*: share of the energy
that decoding does not bring back, all of which the next round's message gets (error feedback). *ms*: CPU time, median of
{repeats}; a megabyte is one of float32. Copying one takes {copy:.2f} ms.

{table}

Who sends has to know what arrives, which is in *encode*. *A round*: of one client both ways, that is, to encode and decode twice,
at the client and at the server together; and its share of the {steps} steps of {images} images that the client trains in a round,
stem and search not counted. All are timed in turns, so that other work of the machine slows them down alike.
`configs/quickstart.yaml`: {of[0]}; `configs/pku.yaml`: {of[1]}.
What codecs cost in accuracy: `configs/compare/codecs_pku.yaml`.
"""
HEAD = ["codec", "bits", "missed", "encode, ms/MB", "decode, ms/MB", "a round: quickstart", "a round: PKU-Reid"]


class Setting(NamedTuple):
    """Of a shipped config, as far as the weights that travel depend on it."""

    backbone: str
    split: str | None
    size: tuple[int, int]
    people: int


SETTINGS = (Setting("resnet18", None, (64, 32), 252), Setting("mobilenet_v2", "features.14", (128, 64), 114))


class Vector(NamedTuple):
    """What a client sends."""

    layout: Layout
    values: Tensor
    train: Callable[[], None]
    """STEPS of what it trains for that."""


class Cost(NamedTuple):
    """CPU milliseconds of a client in a round."""

    encode: list[float]
    """By codec, once."""
    decode: list[float]
    trained: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = [(name, DEAD_ZONES[0]) for name in LOSSY] + [("ternary_entropy", zone) for zone in DEAD_ZONES[1:]]
    vectors = [vector(setting) for setting in SETTINGS]
    codecs = [[LossyCodec(name, groups(v.layout), zone) for name, zone in names] for v in vectors]
    costs = [cost(v, of_vector, options.repeats) for v, of_vector in zip(vectors, codecs, strict=True)]
    first = vectors[0].values
    page = PAGE.format(
        **pages.made_by("torch"),
        repeats=options.repeats,
        copy=in_turns([first.clone], options.repeats)[0] / megabytes(first),
        steps=ROUND,
        images=IMAGES,
        of=[
            f"{v.layout.scalars:,} scalars, {c.trained:,.0f} ms of training"
            for v, c in zip(vectors, costs, strict=True)
        ],
        table=markdown(HEAD, [row(place, codecs[0][place], first, costs) for place in range(len(names))]),
    )
    pages.show(page, options.output)


def vector(setting: Setting) -> Vector:
    network = build(
        setting.backbone, num_classes=setting.people, image_size=setting.size, split=setting.split, last_stride=2
    )
    with torch.no_grad():
        representations = network.stem(torch.randn(IMAGES, 3, *setting.size))
    people = torch.arange(IMAGES) % 32
    layout = Layout.of(adaptive_parameters(network.tail))
    values = torch.randn(layout.scalars, generator=torch.Generator().manual_seed(1)) * 1e-3
    return Vector(layout, values, local_training(network, Samples(representations, people, people)))


def cost(of: Vector, codecs: Sequence[LossyCodec], repeats: int) -> Cost:
    """All in turns, so that whatever else the machine does slows all of them down alike."""
    encode = [partial(codec.send, of.values) for codec in codecs]
    decode = [partial(codec.decode, codec.encode(of.values)) for codec in codecs]
    trained, *times = in_turns([of.train, *encode, *decode], repeats)
    return Cost(times[: len(codecs)], times[len(codecs) :], trained * ROUND / STEPS)


def row(place: int, codec: LossyCodec, values: Tensor, costs: Sequence[Cost]) -> list[str]:
    payload = codec.encode(values)
    missed = (codec.decode(payload) - values).square().sum() / values.square().sum()
    label = f"{codec.name}, dead zone {codec.dead_zone}" if codec.name == "ternary_entropy" else codec.name
    cells = [label, f"{8 * len(payload) / codec.scalars:.3f}", f"{100 * missed:.3g} %"]
    cells += [f"{of[place] / megabytes(values):.2f}" for of in (costs[0].encode, costs[0].decode)]
    spent = [2 * (of.encode[place] + of.decode[place]) for of in costs]
    return cells + [f"{ms:.0f} ms, {ms / of.trained:.1%}" for ms, of in zip(spent, costs, strict=True)]


def megabytes(values: Tensor) -> float:
    return values.nbytes / 1e6


if __name__ == "__main__":
    main()
