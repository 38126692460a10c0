"""The command that reports: what it needs, where it writes, and what it says of input that it cannot use."""

import os
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

from fedstil_mpi import report
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.lease import held
from support import made_runs
from support.made_runs import FIRST


@pytest.fixture
def three(tmp_path):
    return made_runs.write_three(tmp_path)


def command(*arguments, **environment):
    """The documented command, which then says which heavy modules it brought along."""
    program = (
        "import runpy, sys\nsys.argv = ['report', *sys.argv[1:]]\nrunpy.run_module('fedstil_mpi.report', run_name='__main__')\n"
        "print('imported', sorted({'torch', 'torchvision', 'mpi4py', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    settings = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "COVERAGE_PROCESS_START")}
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=settings | environment,
        capture_output=True,
        text=True,
    )


def test_command_needs_no_torch_no_mpi_no_display(three):
    done = command(three, MPLBACKEND="tkagg")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported []"
    assert f"report in {three / 'report' / 'report.md'}" in done.stdout
    assert "70.0 ± 0.0" in done.stdout
    assert "seeds are not the same" in done.stderr


def test_report_goes_where_it_is_asked_to(three, monkeypatch, capsys):
    monkeypatch.chdir(three)
    monkeypatch.setattr(report.plots, "write_all", lambda *_: {})  # which takes most of the time
    report.main([str(three / "single-1")])
    assert (three / "single-1" / "report" / "report.md").exists()
    report.main([str(three / "single-1"), str(three / "fedavg-1")])
    assert (three / "report" / "report.md").exists()
    report.main([str(three), "--output", str(three / "else" / "where")])
    assert (three / "else" / "where" / "report.md").exists()
    assert "report in" in capsys.readouterr().out


@pytest.fixture
def refused(capsys):
    """Run the command; the line it refuses its input with."""

    def function(*arguments):
        with pytest.raises(SystemExit) as end:
            report.main([str(argument) for argument in arguments])
        assert end.value.code == 2
        out, error = capsys.readouterr()
        assert out == ""
        (line,) = error.splitlines()
        assert line.startswith("fedstil_mpi: ")
        return line.removeprefix("fedstil_mpi: ")

    return function


def test_folders_that_hold_no_run(refused, tmp_path):
    line = refused(tmp_path)
    assert line.startswith(f"{tmp_path} has no results.h5")
    assert "expected a run folder" in line
    assert refused(tmp_path / "nowhere").startswith(f"{tmp_path / 'nowhere'} does not exist; expected a run folder")
    (tmp_path / "file").write_text("")
    assert refused(tmp_path / "file").startswith(f"{tmp_path / 'file'} is a file; expected a run folder")
    assert "the following arguments are required: runs" in refused()


def test_interrupted_runs_are_left_out_but_not_the_only_one(refused, three):
    (three / "fedavg-1" / "results.h5").unlink()
    found = report.load([three], None)
    assert found.notes == [f"{three / 'fedavg-1'} has no results.h5, so the run is not complete; left out"]
    assert found.variants[0].seeds == [2]
    assert found.notes[0] in report.text(found, [])
    assert refused(three / "fedavg-1").startswith(f"{three / 'fedavg-1'}: config.yaml but no results.h5")


@pytest.mark.parametrize("content", [b"", b"no HDF5", None])
def test_broken_results(refused, three, content):
    path = three / "fedavg-1" / "results.h5"
    path.write_bytes(path.read_bytes()[:3000] if content is None else content)
    assert refused(three).startswith(f"{path} is damaged, or holds no results: ")


def test_results_of_something_else(refused, three):
    path = three / "fedavg-1" / "results.h5"
    path.unlink()
    with h5py.File(path, "w") as file:
        file["other"] = [1, 2, 3]
    assert refused(three).startswith(f"{path} does not hold results (")


def test_results_of_an_older_version_have_no_checksum(three):
    path = three / "fedavg-1" / "results.h5"
    path.write_bytes(path.read_bytes()[512:])
    (note,) = report.load([three], None).notes
    assert note == f"{path.parent} is of an older version: its results have no checksum"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1", "is not plain YAML"),
        ("!!python/object/apply:os.system ['true']", "is not plain YAML"),
        ("- 1\n- 2\n", "holds a list, expected a mapping"),
        ("seed: 1\nmethod: {name: fedavg}\n", "has rounds.per_task = None; expected a whole number"),
        ("seed: one\nmethod: {name: fedavg}\nrounds: {per_task: 1}\n", "has seed = 'one'; expected a whole number"),
    ],
)
def test_configs_that_cannot_be_used(refused, three, text, says):
    path = three / "fedavg-1" / "config.yaml"
    path.write_text(text)
    line = refused(three)
    assert str(path) in line
    assert says in line


def test_configs_that_are_missing(refused, three):
    (three / "fedavg-1" / "config.yaml").unlink()
    assert f"config file {three / 'fedavg-1' / 'config.yaml'} does not exist" in refused(three)
    shutil.rmtree(three / "fedavg-1")
    environment = three / "fedavg-2" / "environment.json"
    for text, says in {"{": "cannot be read", "[]": "holds a list"}.items():
        environment.write_text(text)
        assert f"{environment} {says}" in refused(three)


def test_equal_configs_of_different_streams(refused, tmp_path):
    made_runs.write(tmp_path / "a", FIRST, seed=1)
    made_runs.write(tmp_path / "b", np.repeat(FIRST, 2, axis=1), seed=2)
    assert refused(tmp_path).startswith(
        f"{tmp_path / 'b'} and {tmp_path / 'a'} have equal configs but not equal shapes"
    )


def test_unknown_label_to_hold_against(refused, three):
    line = refused(three, "--against", "fedstill")
    assert line.startswith("no variant is called 'fedstill'; did you mean fedstil? there are fedavg, fedstil, single")


def test_output_that_is_a_file(refused, three):
    (three / "taken").write_text("")
    assert refused(three, "--output", three / "taken").startswith(f"{three / 'taken'} cannot be made (File exists); ")
    with held(three / "report"):
        assert f"{three / 'report'} is in use by process" in refused(three, "--output", three / "report")


def test_write_raises_for_its_caller(tmp_path):
    with pytest.raises(InputError, match="expected a run folder"):
        report.write(report.load([tmp_path]), tmp_path / "report")
