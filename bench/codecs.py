"""What codecs of weights take, lose and cost, as Markdown.

    .venv/bin/python bench/codecs.py --output bench/codecs.md

Encodes and decodes a Gaussian vector in the layouts of two tails, on one core, beside what a client trains in a round.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import pages
import torch
from speed import IMAGES, STEPS, in_turns, local_training
from torch import Tensor

from fedstil_mpi.client.rehearsal import Samples
from fedstil_mpi.comm.flat import Layout
from fedstil_mpi.comm.lossy import NAMES, LossyCodec, groups
from fedstil_mpi.config.schema import Train
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
stem and search not counted. `configs/quickstart.yaml`: {of[0]}; `configs/pku.yaml`: {of[1]}. What codecs cost in accuracy:
`configs/compare/codecs_pku.yaml`.
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
    trained: float
    """CPU milliseconds of what it trains for that."""

    def __str__(self) -> str:
        return f"{self.layout.scalars:,} scalars, {self.trained:,.0f} ms of training"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    vectors = [vector(setting, options.repeats) for setting in SETTINGS]
    codecs = [(name, DEAD_ZONES[0]) for name in NAMES] + [("ternary_entropy", zone) for zone in DEAD_ZONES[1:]]
    first = vectors[0].values
    page = PAGE.format(
        **pages.made_by("torch"),
        repeats=options.repeats,
        copy=in_turns([first.clone], options.repeats)[0] / (first.nbytes / 1e6),
        steps=ROUND,
        images=IMAGES,
        of=vectors,
        table=markdown(HEAD, [row(*codec, vectors, options.repeats) for codec in codecs]),
    )
    pages.show(page, options.output)


def vector(setting: Setting, repeats: int) -> Vector:
    network = build(
        setting.backbone, num_classes=setting.people, image_size=setting.size, split=setting.split, last_stride=2
    )
    with torch.no_grad():
        representations = network.stem(torch.randn(IMAGES, 3, *setting.size))
    people = torch.arange(IMAGES) % 32
    (trained,) = in_turns([local_training(network, Samples(representations, people, people))], repeats)
    layout = Layout.of(adaptive_parameters(network.tail))
    values = torch.randn(layout.scalars, generator=torch.Generator().manual_seed(1)) * 1e-3
    return Vector(layout, values, trained * ROUND / STEPS)


def row(name: str, dead_zone: float, vectors: list[Vector], repeats: int) -> list[str]:
    measured = [measure(LossyCodec(name, groups(of.layout), dead_zone), of, repeats) for of in vectors]
    label = f"{name}, dead zone {dead_zone}" if name == "ternary_entropy" else name
    return [label, *measured[0][:-1], *(cells[-1] for cells in measured)]


def measure(codec: LossyCodec, of: Vector, repeats: int) -> list[str]:
    payload, megabytes = codec.encode(of.values), of.values.nbytes / 1e6
    missed = (codec.decode(payload) - of.values).square().sum() / of.values.square().sum()
    encode, decode = in_turns([lambda: codec.send(of.values), lambda: codec.decode(payload)], repeats)
    spent = 2 * (encode + decode)
    cells = [f"{8 * len(payload) / codec.scalars:.3f}", f"{100 * missed:.3g} %"]
    return [
        *cells,
        f"{encode / megabytes:.2f}",
        f"{decode / megabytes:.2f}",
        f"{spent:.0f} ms, {spent / of.trained:.1%}",
    ]


if __name__ == "__main__":
    main()
