"""What codecs of weights take, lose and cost, as Markdown.

    .venv/bin/python bench/codecs.py --output bench/codecs.md

Encodes and decodes a Gaussian vector in the layout of a MobileNetV2 tail, on one core.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import pages
import torch

from fedstil_mpi.comm.flat import Layout
from fedstil_mpi.comm.lossy import NAMES, LossyCodec, groups
from fedstil_mpi.models.network import adaptive_parameters, build
from fedstil_mpi.util.tables import markdown

PEOPLE, DEAD_ZONES = 316, (1.2, 1.5)

PAGE = """# Codecs: bits, what they miss, milliseconds

    {command}

{machine}, Python {python}, torch {torch}, one thread. The travelling weights of a MobileNetV2 tail with {people} people, {scalars:,}
scalars, filled with Gaussian numbers: movements of weights under Adam are nearly so. *Bits*: of a payload by scalar, scales and
checksum included. *Missed*: share of the energy that decoding does not bring back, all of which the next round's message gets
(error feedback). *ms*: CPU time, median of {repeats}; a megabyte is one of float32. Copying one takes {copy:.2f} ms.

{table}

Who sends has to know what arrives, which is in *encode*. In a round a client and the server together encode and decode twice.
What codecs cost in accuracy: `configs/compare/codecs_pku.yaml`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tail = build("mobilenet_v2", num_classes=PEOPLE, image_size=(64, 32)).tail
    layout = Layout.of(adaptive_parameters(tail))
    values = torch.randn(layout.scalars, generator=torch.Generator().manual_seed(1)) * 1e-3
    megabytes = 4 * layout.scalars / 1e6
    rows = []
    for name in NAMES:
        for dead_zone in DEAD_ZONES if name == "ternary_entropy" else DEAD_ZONES[:1]:
            codec = LossyCodec(name, groups(layout), dead_zone)
            payload = codec.encode(values)
            missed = (codec.decode(payload) - values).square().sum() / values.square().sum()
            encode = milliseconds(lambda codec=codec: codec.send(values), options.repeats)
            decode = milliseconds(lambda codec=codec, payload=payload: codec.decode(payload), options.repeats)
            label = f"{name}, dead zone {dead_zone}" if name == "ternary_entropy" else name
            cells = [f"{8 * len(payload) / layout.scalars:.3f}", f"{100 * missed:.3g} %"]
            cells += [f"{encode / megabytes:.2f}", f"{decode / megabytes:.2f}", f"{2 * (encode + decode):.0f}"]
            rows.append([label, *cells])
    page = PAGE.format(
        **pages.made_by("torch"),
        people=PEOPLE,
        scalars=layout.scalars,
        repeats=options.repeats,
        copy=milliseconds(values.clone, options.repeats) / megabytes,
        table=markdown(["codec", "bits", "missed", "encode, ms/MB", "decode, ms/MB", "ms a client and round"], rows),
    )
    pages.show(page, options.output)


def milliseconds(work: Callable[[], object], repeats: int) -> float:
    return pages.in_turns([work], repeats)[0]


if __name__ == "__main__":
    main()
