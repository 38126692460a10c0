"""CPU seconds and memory of runs by this code and by an earlier commit, in turns on one machine, as Markdown.

    .venv/bin/python bench/earlier.py be20a6b --output bench/earlier.md

The earlier commit is taken from this repository's history. What both do is the same work: what only this code does beside is left out.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pages

from fedstil_mpi.util.tables import markdown

SAME_WORK = ["evaluation.gallery=task", "prototypes.metric=false", "prototypes.norms=0"]
"""Overrides of this code: where and how it searches was not to be chosen before."""
FOLDER = {
    "data": {
        **{"kind": "synthetic", "height": 128, "width": 64, "tasks": 6},
        "synthetic": {"clients": 2, "people_per_task": 32, "train_images": 10, "warmup_people": 0},
    },
    "model": {"backbone": "resnet18", "num_classes": 8000},
    "rounds": {"per_task": 1, "total": 2},
    "train": {"steps": 0, "epochs": 5, "batch": 64},
    "checkpoint": {"every": 0},
}
QUICKSTART = {
    "data": {"kind": "synthetic", "height": 64, "width": 32, "tasks": 6},
    "model": {"backbone": "resnet18", "last_stride": 2},
    "warmup": {"steps": 150},
    "rounds": {"per_task": 2},
}
"""As it was at first: one gallery, no strangers."""


class Case(NamedTuple):
    name: str
    config: dict[str, Any]
    overrides: list[str]
    precisions: list[str]
    """In which this code runs; the earlier commit in float32."""


CASES = [
    Case("folder, reference_code", FOLDER, ["method.preset=reference_code"], ["float32", "bfloat16"]),
    Case("folder, best", FOLDER, [], ["float32", "bfloat16"]),
    Case("quickstart", QUICKSTART, [], ["float32"]),
]

PAGE = """# Speed against an earlier commit

    {command}

{machine}, Python {python}, torch {torch}, all clients in one process with one thread, median of {repeats} in turns. *Earlier* is commit
{commit}. *Round 2*: what is learned, searched and exchanged in the second round. *Run*: from start to end, the start model and the
images included. *Peak*: the most memory that the process took. *folder*: two clients' 128x64 images, 32 people in a task with ten
training images each, ResNet-18 with a classifier of 8,000 people, five epochs a round. This code searches in the task's gallery alone, by
the cosine of the features, as the earlier one does ({same}).

{table}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    here = Path(__file__).resolve().parents[1]
    with TemporaryDirectory() as folder:
        earlier = Path(folder) / "earlier"
        earlier.mkdir()
        archive = subprocess.run(["git", "-C", here, "archive", given.commit], check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", earlier], input=archive, check=True)
        rows = [row for case in CASES for row in rows_of(case, here, earlier, given.repeats)]
    header = ["work", "code", "precision", "round 2, CPU s", "of earlier", "run, CPU s", "of earlier", "peak, GB"]
    table = markdown(header, rows)
    how = pages.made_by("torch") | {
        "repeats": given.repeats,
        "commit": given.commit,
        "same": "`" + " ".join(SAME_WORK) + "`",
    }
    pages.show(PAGE.format(table=table, **how), given.output)


def rows_of(case: Case, here: Path, earlier: Path, repeats: int) -> list[list[str]]:
    runs = {("earlier", "float32"): (earlier, case.overrides)}
    for precision in case.precisions:
        runs["this", precision] = here, [*case.overrides, *SAME_WORK, f"model.precision={precision}"]
    found: dict[tuple[str, str], list[dict[str, float]]] = {key: [] for key in runs}
    for _ in range(repeats):
        for key, (root, overrides) in runs.items():
            found[key].append(child(root, case.config, overrides))
    rows = []
    first = {what: median(of[what] for of in found["earlier", "float32"]) for what in ("round", "run")}
    for (code, precision), measured in found.items():
        of_round, run, peak = (median(of[what] for of in measured) for what in ("round", "run", "peak"))
        shares = f"{of_round / first['round']:.2f}", f"{run / first['run']:.2f}"
        rows.append(
            [case.name, code, precision, f"{of_round:.1f}", shares[0], f"{run:.1f}", shares[1], f"{peak / 1e9:.2f}"]
        )
    return rows


def child(root: Path, config: dict[str, Any], overrides: list[str]) -> dict[str, float]:
    """What `earlier_run.py` finds."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(json.dumps(config))
        command = [
            sys.executable,
            Path(__file__).with_name("earlier_run.py"),
            root,
            file,
            f"output={folder}",
            *overrides,
        ]
        done = subprocess.run(
            command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, capture_output=True, text=True
        )
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
