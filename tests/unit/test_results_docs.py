"""The lines of docs/results.md read what a run leaves, and each finds the same; results.h5 knows its axes and units."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from fedstil_mpi.results.reading import runs
from support import made_runs

DOCUMENT = (Path(__file__).parents[2] / "docs" / "results.md").read_text()
BLOCKS = {
    re.findall(r"(?:import|from) (\w+)", code)[0]: code for code in re.findall(r"```python\n(.*?)```", DOCUMENT, re.S)
}
SERVED = [[[0.25, np.nan], [0.75, np.nan]], [[0.5, 1.0], [0.75, 0.75]]]
MEANS = [0.5, 0.75]
"""Of all clients and of the tasks that they have met, by round."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return made_runs.write(
        tmp_path / "runs" / "quickstart",
        SERVED,
        relevances={2: made_runs.UNIFORM},
        scopes={"task": -0.25, "client": 0},
    )


@pytest.mark.parametrize("package", ["fedstil_mpi", "pandas", "xarray"])
def test_three_lines_read_it(package, folder, capsys):
    for needed in (package, "h5netcdf") if package == "xarray" else (package,):
        pytest.importorskip(needed, reason=f"{needed} is not installed")
    assert len([line for line in BLOCKS[package].splitlines() if line]) == 3
    exec(BLOCKS[package], {})
    shown = [float(number) for number in re.findall(r"\b\d\.\d+", capsys.readouterr().out)]
    assert shown == MEANS


def test_every_data_set_is_documented_and_knows_its_axes_and_units(folder):
    def look(path, item):
        if not isinstance(item, h5py.Dataset) or item.is_scale:
            return
        pattern = re.sub("^(local|served)/", "<view>/", path)
        pattern = re.sub("(accuracy_matrix|final)/(rank\\d+|map|counted|forgetting|transfer)$", r"\1/<metric>", pattern)
        pattern = re.sub("^seconds/.*", "seconds/<activity>", pattern)
        row = next(row for row in DOCUMENT.splitlines() if row.startswith(f"| `{pattern.replace('effort', 'online')}`"))
        axes = row.split("|")[2].strip()
        assert [dimension.label for dimension in item.dims] == axes.split(", "), path
        assert [len(dimension[0]) for dimension in item.dims] == list(item.shape), path
        assert ("units" in item.attrs) == (path not in ("training/reports", "final/fingerprints")), path
        assert item.dtype.kind != "O", path

    with h5py.File(folder / "results.h5") as file:
        file.visititems(look)
        assert file["metric"][()].tolist() == [name.encode() for name in file.attrs["metrics"]]
        assert file["served/rounds"][()].tolist() == [1, 2]
    assert set(runs.read(folder).seconds) == set(made_runs.SECONDS[0])


def test_texts_come_back_as_they_were(tmp_path):
    ledger = [(1, 0, "S2C", "Gewichte für alle", 10), (1, 1, "C2S", "x", 20)]
    found = runs.read(made_runs.write(tmp_path / "run", SERVED, ledger=ledger)).ledger
    assert found["kind"].tolist() == ["Gewichte für alle", "x"]
    assert found["direction"].tolist() == ["S2C", "C2S"]
    assert np.array_equal(found["raw"], [10, 20])
