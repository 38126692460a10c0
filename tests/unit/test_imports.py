"""What importing the program costs: torch only after the ranks are placed, MPI only when it is started."""

import json
import subprocess
import sys

import pytest

from support import TINY

EARLY = [
    *("run", "compare", "interactive", "plan", "report", "methods", "comm.start", "federation.shared_resources"),
    *("config.schema", "config.loading", "config.command_line", "launch.placement", "launch.gpus", "launch.signals"),
    *("util.seeding", "util.errors", "data.building.build", "data.pack.manifest", "data.pack", "data.readers"),
    *("data.sources", "data.streams.base", "data.files.images", "data.streams.folder", "data.streams.pku"),
    *("data.streams.synthetic", "data.synthetic.rendering", "data.pack.export"),
    *("data.streams.pooled", "data.streams.subset", "data.streams.validation"),
]
"""What is imported before CUDA_VISIBLE_DEVICES and the number of threads are settled."""

PROGRAM = """
import importlib, json, sys
from pathlib import Path

touched = []

def hook(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.bind", "urllib.Request"):
        touched.append(f"{event} {args[1:]}")

sys.addaudithook(hook)
names = json.loads(sys.argv[1])
if not names:
    import fedstil_mpi
    root = Path(fedstil_mpi.__file__).parent
    files = [path.relative_to(root.parent).with_suffix("") for path in root.rglob("*.py")]
    names = sorted(".".join(file.parts).removesuffix(".__init__") for file in files)
found = {}
for name in names:
    before = set(sys.modules)
    importlib.import_module(name)
    found[name] = sorted({"torch", "torchvision", "mpi4py"} & (set(sys.modules) - before))
if "fedstil_mpi.client.adam" in names:
    import torch
    sys.modules["fedstil_mpi.models.torchvision_cpu"].import_models().resnet18()
    weight = torch.nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    sys.modules["fedstil_mpi.client.adam"].Adam([weight], 0.1, 0.0).step()
json.dump({"found": found, "touched": touched, "compiler": "torch._dynamo" in sys.modules}, sys.stdout)
"""


def import_all(*names):
    """Import the modules, all of the package without names, one after another in a fresh interpreter.

    Returns which of torch, torchvision and mpi4py each brought along ("found"), what was done with sockets ("touched"), and
    whether torch's compiler was loaded, also by building a backbone and by a step of training.
    """
    done = subprocess.run([sys.executable, "-c", PROGRAM, json.dumps(names)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_comes_before_the_placement_imports_nothing_heavy():
    found = import_all(*(f"fedstil_mpi.{name}" for name in EARLY))["found"]
    assert len(found) == len(EARLY)
    assert {name: heavy for name, heavy in found.items() if heavy} == {}


@pytest.fixture(scope="module")
def everything():
    return import_all()


def test_no_import_starts_mpi_or_needs_torchvision(everything):
    found = everything["found"]
    assert {name: heavy for name, heavy in found.items() if {"mpi4py", "torchvision"} & set(heavy)} == {}
    assert any("torch" in heavy for heavy in found.values())  # else this test would see nothing


def test_no_import_opens_the_network(everything):
    assert everything["touched"] == []


def test_neither_imports_nor_backbones_nor_training_load_the_compiler(everything):
    """It would cost every rank a second."""
    assert not everything["compiler"]


@pytest.mark.parametrize("more", [(), ("compression.up=ternary",)], ids=["plain", "codec"])
def test_a_run_loads_no_compiler(tmp_path, more):
    """Not for what is foretold or checked on the device meta, nor for the warm-up with torch's own Adam."""
    program = (
        "import sys; from fedstil_mpi import run; run.main(sys.argv[1:]); sys.exit('torch._dynamo' in sys.modules)"
    )
    settings = ["warmup.steps=1", "train.steps=1", "data.tasks=1", f"output={tmp_path}", *more]
    done = subprocess.run([sys.executable, "-c", program, str(TINY), *settings], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
