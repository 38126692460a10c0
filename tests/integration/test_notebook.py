"""Runs from Python are those of the command; the notebook of docs/ plays."""

import json
import os
from pathlib import Path

import pytest

from fedstil_mpi.results import RESULTS_FILE
from support import SMALL, TINY
from support.launch import alone, environment, find_mpirun
from support.results import different, results

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"
PROGRAM = """
import json, sys
from fedstil_mpi.interactive import run
from fedstil_mpi.util.errors import InputError

assert not {"torch", "mpi4py"} & set(sys.modules)  # the import is cheap

def refused(settings):
    try:
        run(sys.argv[1], settings)
    except InputError as error:
        return str(error)

settings = {"model.backbone": sys.argv[2], "name": "python"}
found = run(sys.argv[1], settings)
again = run(sys.argv[1], settings, resume=True)
print(json.dumps([str(found.folder), str(again.folder), refused(settings), refused({"data.hight": 3})]))
"""


def test_a_run_from_python_is_that_of_the_command(tmp_path):
    command = alone("-m", "fedstil_mpi.run", TINY, SMALL, "name=command", cwd=tmp_path)
    assert command.returncode == 0, command.stderr
    played = alone("-c", PROGRAM, TINY, SMALL.partition("=")[2], cwd=tmp_path)
    assert played.returncode == 0, played.stderr
    found, again, used, unknown = json.loads(played.stdout.splitlines()[-1])
    assert found == again == "runs/python"
    assert used.startswith("runs/python holds a run already")
    assert unknown.startswith("unknown config key data.hight")
    assert different(*(results(tmp_path / "runs" / name) for name in ("python", "command"))) == []


@pytest.mark.slow
def test_the_notebook_plays(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed: pip install 'fedstil-mpi[test]'")
    client = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install 'fedstil-mpi[test]'")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed: pip install 'fedstil-mpi[test]'")
    find_mpirun()  # skips where MPI is not installed
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, [NOTEBOOK.parents[1], os.environ.get("PYTHONPATH", "")])))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    runs = sorted(path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob(RESULTS_FILE))
    assert runs == ["runs/first", "runs/methods/fedavg-1", "runs/methods/fedstil-1"]
    (table,) = (out["data"]["text/markdown"] for cell in notebook.cells for out in cell.get("outputs", [])
                if "text/markdown" in out.get("data", {}))  # fmt: skip
    assert [row.split("|")[1].strip() for row in table.splitlines()[2:]] == ["FedAvg", "FedSTIL"]
