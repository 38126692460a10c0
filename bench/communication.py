"""Bytes of every method's messages, predicted from the layouts and measured through the real collectives, as Markdown.

    .venv/bin/python bench/communication.py --output bench/communication.md

Nothing is trained. The measured part starts mpirun itself.
"""

import argparse
import json
import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Hashable
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import pages
import traffic_cases as cases
import traffic_ranks as played
import traffic_summary
import traffic_tables as tables
from reference_traffic import BANK, REFERENCE_SWIN, Counts
from traffic_cases import IMAGE, Case

from fedstil_mpi import methods
from fedstil_mpi.comm.ledger import DOWN, UP
from fedstil_mpi.models.network import Network
from fedstil_mpi.util.tables import markdown

BACKBONES = ("resnet18", "resnet50", "mobilenet_v2", "swin_t")
CLIENTS = (2, 5, 16, 64)

TITLE = "# Communication: what every method sends"

INTRODUCTION = """## How it was made

    {command}

{machine}, Python {python}, torch {torch}, mpi4py {mpi4py}, Open MPI {openmpi}. Nothing is trained: how large a
message is does not depend on its values, but for parts that travel sparsely, of which {density:.0%} are taken to be not zero.

Bytes are of one client's edge link, the mean over clients where they differ. *Reference code*: the messages
of FedSTIL's reference code, by its formulas, counted on our network with {classes} classes, images of {height} x {width} (Swin
resizes to 224 x 224), stride 1 in the last stage, {clients} clients, and a bank of {bank} in FedWeIT; scalars / MB. (MobileNetV2
is not among its backbones; the formulas are the same.) *Ours*: what the methods' layouts say, by preset, in
bytes. Rows with equal numbers stand together.

- *first contact*: the start model, once. *With a checkpoint*: all clients have the same pretrained backbone already, so
  that only the classifier is sent.
- *quiet* and *busiest*: the rounds after the first in which least and most travels. Task changes make the difference:
  what is sent once per task (ids and prototypes of its {people} people, ...) goes up at the task's begin or end and
  comes down one round later. Which clients meet the same people is as in the default synthetic stream.
- *60 rounds*: 6 tasks of 10 rounds, up and down, first contact without a checkpoint included. Ours have one message
  down more than the reference code: after the last round the server sends what it learned in it."""

SWIN = """The reference code's numbers for Swin-T are from another implementation of it. The formulas on torchvision's give the same d_tr,
d_ad, rest and token, but a d_full that is smaller by {masks:,}: that implementation stores its attention masks as buffers,
49 x 49 for each of 64 + 16 + 3 x 4 windows, and torchvision computes them when they are needed. *rest* is less than d_full -
d_ad, because the reference code collects tensors from modules without children, and from layers that it decomposes only
the weights: relative position tables, their indices and the biases of the tail's linear layers, {left_out:,} scalars in
torchvision's, are left out, so that what a client starts from is not quite the server's model. Ours sends all."""

MORE_CLIENTS = """MB over the server's link in a quiet round, to or from all K clients together, for {backbone}; ours with preset best,
in brackets what the reference code sends, if it has the method. What is equal for all clients counts once for each."""

CODECS = """MB of a client in the 60 rounds, up and down, first contact included, for {backbone} and {clients} clients, preset best; in
brackets what is saved. With a codec the start model and prototypes travel as float16, FedCurv's importances as bfloat16;
`compression.rows` is all. FedSTIL-atten's bank stays dense. ternary_entropy: at most. A run holds its ledger against these
numbers in every round (`tests/integration/test_codecs.py`: every codec, also as MPI counts it); milliseconds are in
`bench/codecs.md`."""

MEASURED = """The messages of {tasks} tasks of {per_task} rounds through the collectives that a run uses, with rows of zeros, on {ranks} ranks of one
machine: rank 0 is the server, the clients share the others. *MB down*, *MB up*: over all clients, in the last round, a quiet
one. *ledger*: what was booked against what was predicted, entry by entry. *MB moved*: between ranks, in all rounds
together, as our exchange counts it; it stands alone where it is what was predicted and what the MPI library has counted
(Open MPI's monitoring), to the byte. What is equal for all clients moves once to each rank. *s*: seconds of a round, down
and up, from the third on: median of the quiet ones, and the slowest, on a machine with other work. *predicted only*: the
server's buffers would take more than {memory:g} GB; the clients' need about as much again."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=list(BACKBONES), metavar="BACKBONE")
    parser.add_argument("--clients", nargs="+", type=int, default=list(CLIENTS), help="for the first backbone")
    parser.add_argument("--memory", type=float, default=4.0, help="GB that the server's buffers may take")
    parser.add_argument("--ranks", type=int, default=3, help="of the measured part, at least 2: the server has its own")
    parser.add_argument("--output", type=Path, help="default: standard output")
    options = parser.parse_args()
    text = page(options)
    pages.show(text, options.output)


def page(options: argparse.Namespace) -> str:
    networks = {backbone: cases.network(backbone) for backbone in options.backbones}
    counts = {backbone: Counts.of(network, IMAGE) for backbone, network in networks.items()}
    first = options.backbones[0]
    sections = [
        TITLE,
        *summed_up(options, networks[first], counts[first]),
        introduction(),
        "## Networks",
        tables.network_table(counts),
    ]
    sections += [swin(counts["swin_t"])] if "swin_t" in counts else []
    for backbone, network in networks.items():
        sections += [f"## {backbone}", "Reference code:", tables.reference_table(counts[backbone])]
        sections += ["Ours:", tables.own_table(backbone, network)]
        sections += [tables.savings(backbone, network, counts[backbone])]
    sections += ["## More clients", MORE_CLIENTS.format(backbone=first)]
    sections += [tables.clients_table(first, networks[first], counts[first], options.clients)]
    sections += ["## Codecs", CODECS.format(backbone=first, clients=tables.CLIENTS)]
    sections += [tables.codecs_table(first, networks[first])]
    length = {"tasks": played.TASKS, "per_task": played.PER_TASK}
    sections += ["## Measured", MEASURED.format(**length, ranks=options.ranks, memory=options.memory)]
    sections += [measured_table(options, networks)]
    return "\n\n".join(sections) + "\n"


def summed_up(options: argparse.Namespace, network: Network, counts: Counts) -> list[str]:
    """The summary, with its picture beside the page; nothing where the page is printed."""
    if options.output is None:
        return []
    backbone, picture = options.backbones[0], options.output.with_suffix(".png")
    found = traffic_summary.totals(backbone, network, counts)
    traffic_summary.draw(found, picture)
    return [traffic_summary.summary(backbone, network, found, picture.name)]


def introduction() -> str:
    return INTRODUCTION.format(
        **pages.made_by("torch", "mpi4py", "openmpi"),
        density=cases.DENSITY,
        classes=cases.CLASSES,
        height=IMAGE[0],
        width=IMAGE[1],
        clients=tables.CLIENTS,
        bank=BANK,
        people=cases.PEOPLE,
    )


def swin(counts: Counts) -> str:
    left_out = counts.full.scalars - counts.adaptive.scalars - counts.rest.scalars
    return SWIN.format(masks=REFERENCE_SWIN - counts.full.scalars, left_out=left_out)


# -- the measured part -------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """What one play stands for: all cases of which the same passes."""

    case: Case
    down: int
    up: int
    buffers: int
    names: dict[tuple[str, str], tuple[()]] = field(default_factory=dict)
    """(method, preset) of the cases."""
    result: dict[str, Any] = field(default_factory=dict)


def measured_table(options: argparse.Namespace, networks: dict[str, Network]) -> str:
    runs: dict[Hashable, Run] = {}
    for case in wanted(options):
        plan = cases.schedule(case.clients, played.TASKS, played.PER_TASK)
        schema = cases.schema_of(case, networks[case.backbone])
        ledger = cases.predicted(case, networks[case.backbone], plan)
        passing = case.backbone, case.clients, schema.traffic.down, schema.traffic.up, tuple(ledger.entries)
        if passing not in runs:
            down, up = (ledger.total(direction, plan.total) for direction in (DOWN, UP))
            runs[passing] = Run(case, down, up, cases.server_memory(schema, ledger))
        runs[passing].names[case.method, case.preset] = ()
    small = [run for run in runs.values() if run.buffers <= options.memory * 1e9]
    for run, result in zip(small, measure([run.case for run in small], options.ranks), strict=True):
        run.result = result
    head = ["backbone", "K", "method (presets)", "MB down", "MB up", "MB of buffers", "ledger", "MB moved"]
    return markdown([*head, "s, quiet", "s, slowest"], map(cells, runs.values()), left=3)


def wanted(options: argparse.Namespace) -> list[Case]:
    """The default preset for all numbers of clients and all backbones; the other presets for the reference code's."""
    first, *others = options.backbones
    settings = [(first, k, "best") for k in options.clients]
    settings += [(first, tables.CLIENTS, preset) for preset in cases.PRESETS[1:]]
    settings += [(backbone, tables.CLIENTS, "best") for backbone in others]
    of_methods = [(*of, method) for of in settings for method in methods.names()]
    return [Case(on, method, preset, k) for on, k, preset, method in of_methods if preset in cases.presets(method)]


def measure(run: list[Case], ranks: int) -> list[dict[str, Any]]:
    """What bench/traffic_ranks.py finds for these cases, and whether the MPI library has counted the same ("counted")."""
    with tempfile.TemporaryDirectory() as folder:
        monitoring = {"enable": "2", "enable_output": "3", "filename": f"{folder}/run"}
        settings = {f"OMPI_MCA_pml_monitoring_{key}": value for key, value in monitoring.items()}
        script = Path(__file__).with_name("traffic_ranks.py")
        command = [*pages.on_ranks(ranks), str(script), json.dumps([astuple(case) for case in run])]
        done = subprocess.run(command, env={**os.environ, **settings}, check=True, stdout=subprocess.PIPE, text=True)
        counted = library_counts(Path(folder, "run.0.prof").read_text())
    results = [json.loads(line) for line in done.stdout.splitlines()]
    for result in results:
        result["counted"] = counted[result["moved"]] > 0
        counted[result["moved"]] -= 1
    return results


def library_counts(profile: str) -> Counter[int]:
    """Bytes from and to rank 0 in the collectives of every exchange; Open MPI does not write them in any order."""
    blocks = [b for b in re.split(r"^D\t", profile, flags=re.MULTILINE) if b.startswith("exchange\t")]
    lines = [re.findall(r"^(?:O2A|A2O)\t0\t(\d+) bytes", block, re.MULTILINE) for block in blocks]
    return Counter(sum(map(int, of)) for of in lines)


def cells(run: Run) -> list[str]:
    names = "; ".join(f"{of} ({presets})" for of, presets in tables.merged(run.names))
    sizes = map(tables.megabytes, (run.down, run.up, run.buffers))
    start = [run.case.backbone, str(run.case.clients), names, *sizes]
    if not (result := run.result):
        return [*start, "predicted only", "", "", ""]
    ledger = f"{result['different']} entries differ" if result["different"] else "equal"
    moved = tables.megabytes(result["moved"])
    if result["moved"] != result["moved_predicted"]:
        moved += f", predicted {tables.megabytes(result['moved_predicted'])}"
    if not result["counted"]:
        moved += ", MPI counts otherwise"
    return [*start, ledger, moved, f"{result['quiet']:.3f}", f"{result['slowest']:.3f}"]


if __name__ == "__main__":
    main()
