"""What checkpoints cost, in seconds as a share of a round and in bytes, as Markdown.

    .venv/bin/python bench/checkpoint.py --output bench/checkpoint.md

Runs the same experiment with a checkpoint after every round and with none, in turns.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import h5py
import numpy as np
import pages

from fedstil_mpi.util.clock import CPU
from fedstil_mpi.util.tables import markdown

LOOK = 0.05
"""Seconds between two looks at the checkpoints on the disk, which are removed at the end."""

PAGE = """# Checkpoints: seconds and bytes

    {command}

{machine}, Python {python}, torch {torch}, Open MPI {openmpi}; {config} with {settings}: {rounds}
rounds of FedSTIL, {clients} clients on {ranks} ranks, the run folder on {disk}. `checkpoint.every` is 1 and 0 in turns, {repeats} times each.
Seconds are means over ranks and rounds: of a *round*, all but start and checkpoint, validation and last distribution
included; of a *checkpoint*, while the run stands still for it: states are copied, and the one before is waited for. Files
are written, and brought to the disk (fsync), while the next round trains, which makes that round longer, if anything.
*Share*: the second by the first.

{rounds_table}

Median share: **{share:.1f} %**. Medians of a round: {less:.2f} s where files are written beside it, {without:.2f} s ({least:.2f} to
{most:.2f}) where none are; with what the run stands still for, {all:+.1f} %.

{bytes_table}

There are never more than two checkpoints, beside the start model, and none when the run is complete. Most on the disk at
any time: {peak:.1f} MB. What was sent in the whole run: {sent:.1f} MB.
"""


@dataclass(frozen=True)
class Run:
    every: int
    seconds: dict[str, float]
    """By activity, mean over ranks."""
    rounds: int
    clients: int
    sent: int
    """Bytes over the edge links."""
    checkpoints: dict[str, dict[str, int]]
    """Name of a checkpoint's folder -> bytes of its files."""
    peak: int
    """Most bytes of all checkpoints at any time."""

    @property
    def checkpoint(self) -> float:
        """Seconds of one."""
        return self.seconds.get("checkpoint", 0.0) / self.rounds

    @property
    def round(self) -> float:
        """Wall seconds of one, without start and checkpoint."""
        idle = ("set-up", "checkpoint", CPU)
        return sum(s for activity, s in self.seconds.items() if activity not in idle) / self.rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/quickstart.yaml"))
    parser.add_argument(
        "--set", nargs="+", default=["data.tasks=3", "rounds.total=12", "warmup.steps=10"], metavar="section.key=value"
    )
    parser.add_argument("--ranks", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--folder", type=Path, help="where the run folders are made, on the disk to measure; default: /tmp"
    )
    parser.add_argument("--output", type=Path, help="default: standard output")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        order = [every for _ in range(options.repeats) for every in (1, 0)]
        runs = [measure(options, Path(folder), f"run{number}", every) for number, every in enumerate(order)]
        text = page(options, disk(Path(folder)), runs)
    pages.show(text, options.output)


def measure(options: argparse.Namespace, folder: Path, name: str, every: int) -> Run:
    command = [*pages.on_ranks(options.ranks), "-m", "fedstil_mpi.run", str(options.config), *options.set]
    command += [f"output={folder}", f"name={name}", f"checkpoint.every={every}"]
    checkpoints: dict[str, dict[str, int]] = {}
    peak = 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        files = sizes((folder / name / "checkpoints").rglob("*"))
        peak = max(peak, sum(files.values()))
        for path in files:
            if path.name == "checkpoint.json":
                checkpoints[path.parent.name] = {p.name: size for p, size in files.items() if p.parent == path.parent}
        time.sleep(LOOK)
    if process.returncode:
        sys.exit(f"{' '.join(command)} returned {process.returncode}")
    with h5py.File(folder / name / "results.h5") as file:
        of_activities = {name: found for name, found in file["seconds"].items() if not found.is_scale}
        seconds = {activity: np.nan_to_num(of_ranks[()]).mean() for activity, of_ranks in of_activities.items()}
        rounds, clients = file["training/reports"].shape[:2]
        sent = int(file["ledger"][()]["encoded"].sum())
    return Run(every, seconds, rounds, clients, sent, checkpoints, peak)


def sizes(paths: Iterable[Path]) -> dict[Path, int]:
    """Bytes of the files among them that are still there."""
    found = {}
    for path in paths:
        try:
            if path.is_file():
                found[path] = path.stat().st_size
        except OSError:  # renamed in this moment
            continue
    return found


def disk(folder: Path) -> str:
    """The kind of file system under a folder."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    return max((point, kind) for point, kind in mounts if folder.resolve().is_relative_to(point))[1]


def page(options: argparse.Namespace, where: str, runs: list[Run]) -> str:
    with_them, without = ([run for run in runs if bool(run.every) is every] for every in (True, False))
    rows = [
        (str(run.every), f"{run.round:.2f}", f"{run.checkpoint:.3f}", f"{100 * run.checkpoint / run.round:.1f}")
        for run in runs
    ]
    return PAGE.format(
        **pages.made_by("torch", "openmpi"),
        ranks=options.ranks,
        config=options.config,
        settings=" ".join(options.set),
        rounds=runs[0].rounds,
        clients=runs[0].clients,
        disk=where,
        repeats=options.repeats,
        rounds_table=markdown(["every", "s of a round", "s of a checkpoint", "share (%)"], rows, left=0),
        share=100 * median(run.checkpoint / run.round for run in with_them),
        without=median(run.round for run in without),
        least=min(run.round for run in without),
        most=max(run.round for run in without),
        less=median(run.round for run in with_them),
        all=100 * (median(run.round + run.checkpoint for run in with_them) / median(run.round for run in without) - 1),
        bytes_table=markdown(["written", "MB"], [(what, f"{size / 1e6:.3f}") for what, size in written(with_them[-1])]),
        peak=max(run.peak for run in with_them) / 1e6,
        sent=runs[0].sent / 1e6,
    )


def written(run: Run) -> list[tuple[str, int]]:
    """What, and its bytes: the start, and the largest checkpoint after a round by kind of file."""
    start = sum(run.checkpoints["start"].values())
    rounds = [files for name, files in run.checkpoints.items() if name.isdecimal()]
    last = max(rounds, key=lambda files: sum(files.values()))
    clients = [size for name, size in last.items() if name.startswith("client-")]
    return [
        ("the start model, once", start),
        ("after a round, the most", sum(last.values())),
        (f"of that, a client, mean of {len(clients)}", sum(clients) // len(clients)),
        ("of that, the server", last["server.safetensors"]),
        ("of that, ledger, metrics and who met the server", last["progress.safetensors"]),
        ("of that, the list of files", last["checkpoint.json"]),
    ]


if __name__ == "__main__":
    main()
