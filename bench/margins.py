"""How far apart methods end on one config: each variant over several seeds, as a Markdown table.

    .venv/bin/python bench/margins.py configs/quickstart.yaml --seeds 1 2 3 --ranks 6 --output runs/margins

A run that is complete in the output folder is not repeated, so an interrupted comparison goes on where it stopped.
Overrides (section.key=value, for every run) stand right behind the config.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np

VARIANTS = {
    "single": ["method.name=single"],
    "fedavg": ["method.name=fedavg"],
    "fedstil without prototypes": ["prototypes.exchange=false"],
    "single with prototypes": ["method.name=single", "prototypes.exchange=true"],
    "fedavg with prototypes": ["method.name=fedavg", "prototypes.exchange=true"],
    "fedstil": [],
    "fedstil, uniform relevance": ["method.relevance=uniform"],
    "fedstil, preset paper": ["method.preset=paper"],
    "fedstil, preset reference": ["method.preset=reference"],
    "pooled": ["method.name=single", "data.pooled=true"],
}
COLUMNS = ("rank1", "map", "forgetting")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--client", type=int, help="measure this client alone; default: mean over clients")
    parser.add_argument("--output", type=Path, default=Path("runs/margins"))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS)[:6], metavar="VARIANT")
    parser.add_argument("overrides", nargs="*", help="section.key=value for every run")
    arguments = parser.parse_args()
    results: dict[str, list[Path]] = {}
    for seed in arguments.seeds:
        for variant in arguments.variants:
            results.setdefault(variant, []).append(run(arguments, variant, seed))
    print(table(results, arguments.client))


def run(arguments: argparse.Namespace, variant: str, seed: int) -> Path:
    """The results of one run, which is started unless they are there already."""
    name = f"{variant.replace(' ', '-').replace(',', '')}-{seed}"
    folder = arguments.output / Path(arguments.config).stem / name
    if not (folder / "results.h5").exists():
        shutil.rmtree(folder, ignore_errors=True)
        settings = [f"output={folder.parent}", f"name={name}", f"seed={seed}", "placement.threads=1"]
        mpirun = shutil.which("mpirun", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
        launch = [] if arguments.ranks == 1 else [mpirun, "-n", str(arguments.ranks)]
        command = [*launch, sys.executable, "-m", "fedstil_mpi.run", arguments.config]
        subprocess.run([*command, *settings, *VARIANTS[variant], *arguments.overrides], check=True, stdout=sys.stderr)
    return folder / "results.h5"


def table(results: dict[str, list[Path]], client: int | None) -> str:
    """Mean and standard deviation over seeds (n - 1), all in percent; megabytes per client, first contact included."""
    lines = ["| method | rank-1 served | mAP | forgetting | rank-1 local | MB down | MB up |", "|" + " --- |" * 7]
    for variant, paths in results.items():
        values = np.array([measure(path, client) for path in paths])
        spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.full(values.shape[1], np.nan)
        cells = [f"{m:.1f} ± {s:.1f}" for m, s in zip(values.mean(0)[:4], spread[:4], strict=True)]
        cells += [f"{m:.1f}" for m in values.mean(0)[4:]]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def measure(path: Path, client: int | None) -> list[float]:
    """What is served and rank-1 of the local model, of one client or the mean; megabytes per client down and up."""
    of = slice(None) if client is None else slice(client, client + 1)
    with h5py.File(path) as file:
        served = [float(np.nanmean(file[f"served/final/{name}"][of])) for name in COLUMNS]
        local = float(np.nanmean(file["local/final/rank1"][of]))
        ledger = file["ledger"][()]
        clients = len(file["served/final/rank1"])
        sent = [ledger["encoded"][ledger["direction"] == way].sum() / 1e6 / clients for way in (b"S2C", b"C2S")]
    return [*served, local, *sent]


if __name__ == "__main__":
    main()
