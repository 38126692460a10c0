"""This program beside its peers: CPU time of a client-round of FedAvg, on the same data, as Markdown.

    .venv/bin/python bench/peers.py --output bench/peers.md

Peers are installed with pip, each in a virtual environment of its own, in a temporary folder or in that of --environments, where
they stay. One that cannot be installed is left out, and the page says why.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pages
import peers_parts
from peers_tables import BEGINNING, LATER, Program, Run, page

from fedstil_mpi import methods
from fedstil_mpi.client.representations import represent
from fedstil_mpi.config import loading
from fedstil_mpi.federation.plan import make_plan
from fedstil_mpi.federation.start_model import build_network

HERE = Path(__file__).parent
CONFIG = HERE / "peers.yaml"
OWN = Program(
    "this program",
    "peers_own.py",
    None,
    "every client's model, in files where all take 1 GiB or more; bytes of every edge link; loss and accuracy of every client "
    "and round; whether any weight is not finite",
)
PEERS = [
    Program("pfl-research", "peers_pfl.py", "pfl", "one model, nothing of the clients"),
    Program(
        "Flower's simulation",
        "peers_flower.py",
        "flwr[simulation]",
        "one model for all clients, which run in a process of Ray's that is sent messages; nothing of the clients",
    ),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, nargs="+", default=[100, 2000], help="P is 512 times as much")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--environments", type=Path, help="where the peers' environments are, or are made")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        programs, missing = {OWN: Path(sys.executable)}, {}
        for peer in PEERS:
            try:
                programs[peer] = install(peer, options.environments or Path(folder))
            except subprocess.CalledProcessError as error:
                missing[peer.name] = error.stderr.strip().splitlines()[-1]
        runs = measure(Path(folder), programs, options.people, options.clients, options.repeats)
        versions = ", ".join(installed(peer, python) for peer, python in programs.items() if peer != OWN)
    text = page(runs, missing, versions=versions, **pages.made_by("torch"))
    pages.show(text, options.output)


def install(peer: Program, folder: Path) -> Path:
    """The Python of the peer's environment, which has torch in this one's version. Raises CalledProcessError where that fails."""
    place = folder.absolute() / peer.script.removesuffix(".py")
    python = place / "bin/python"
    if not (place / "complete").exists():
        torch = version("torch").partition("+")[0]
        make = [sys.executable, "-m", "venv", "--clear", place]
        for command in (make, [python, "-m", "pip", "install", "--quiet", peer.requirement, f"torch=={torch}"]):
            subprocess.run(command, check=True, capture_output=True, text=True)
        (place / "complete").touch()
    return python


def installed(peer: Program, python: Path) -> str:
    """Its name and version, and those of what it shares with this program."""
    names = [peer.requirement.partition("[")[0], "torch"]
    ask = f"from importlib.metadata import version; print(*map(version, {names}))"
    found = subprocess.run([python, "-c", ask], check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    return f"{peer.name} {found[0]} (torch {found[1]})"


def measure(
    folder: Path, programs: Mapping[Program, Path], people: Sequence[int], clients: int, repeats: int
) -> dict[tuple[int, Program], list[Run]]:
    """Runs in turns, by number of people."""
    runs: dict[tuple[int, Program], list[Run]] = {(p, program): [] for p in people for program in programs}
    for (p, program), of_case in [case for _ in range(repeats) for case in runs.items()]:
        place = folder / f"{p} {program.script} {len(of_case)}"
        of_case.append(run(program, programs[program], place, p, clients))
    return runs


def run(program: Program, python: Path, folder: Path, people: int, clients: int) -> Run:
    """One run in processes of its own."""
    settings = {
        "PEERS_PEOPLE": str(people),
        "OMP_NUM_THREADS": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
    }
    os.environ |= settings
    overrides = [
        f"data.synthetic.clients={clients}",
        f"data.kind={HERE / 'peers_parts.py'}",
        f"model.backbone={HERE / 'peers_parts.py'}",
        *(f"rounds.{key}={LATER[1]}" for key in ("total", "per_task", "evaluate_every")),
        f"output={folder}",
    ]
    write_task(folder, overrides)
    command = [python, HERE / program.script, folder, *([CONFIG, *overrides] if program == OWN else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return Run({int(round): seconds for round, seconds in found["cpu"].items()}, found["losses"], found["settings"])


def write_task(folder: Path, overrides: Sequence[str]) -> None:
    """What bench/peers_task.py reads, as this program would have it."""
    method = methods.load("fedavg")
    experiment = loading.resolve(loading.read(CONFIG, list(overrides)), method.Options, method.PRESETS)
    stream = peers_parts.open_stream(experiment.data, experiment.seed)
    plan = make_plan(experiment, method, stream)
    network = build_network(experiment, plan.num_classes)
    device = network.tail.classifier.weight.device
    images = [stream.task(client, 0).train for client in range(stream.clients)]
    folder.mkdir(parents=True)
    np.savez(
        folder / "task.npz",
        features=np.stack([represent(network.stem, of_client.pixels, device) for of_client in images]),
        labels=np.stack([of_client.pids for of_client in images]),
        start=network.tail.classifier.weight.detach().numpy(),
        drawn=np.array([online for _, online in plan.schedule.rounds()]),
    )
    train = experiment.train
    settings = {"lr": train.lr, "weight_decay": train.weight_decay, "marks": [*BEGINNING, *LATER]}
    (folder / "task.json").write_text(json.dumps(settings))


if __name__ == "__main__":
    main()
