"""A run folder is one run's: known by what decides its results, written once, and never given up by the program's advice."""

import ast
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fedstil_mpi
from fedstil_mpi import methods
from fedstil_mpi.checkpoints import files
from fedstil_mpi.config import loading
from fedstil_mpi.config.synthetic import SyntheticOptions
from fedstil_mpi.data.pack.packing import pack_stream
from fedstil_mpi.data.streams.synthetic import SyntheticStream
from fedstil_mpi.results.writing import inputs, provenance
from fedstil_mpi.results.writing.run_folder import RunFolder
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.lease import NAME


@pytest.fixture(autouse=True)
def fresh():
    """As in another process."""
    inputs._digest.cache_clear()


def experiment(folder, *, resume="auto", **sections):
    source = {"name": "x", "output": str(folder), "resume": resume, **sections}
    method = methods.load("fedstil")
    return loading.resolve(source, method.Options, method.PRESETS)


def begun(folder, **sections):
    """A run that was interrupted after its config was written."""
    run = experiment(folder, **sections)
    place = RunFolder(run.folder)
    assert place.open(run) == "absent"
    place.create(run, [])
    place.close()
    return run


def state(run):
    inputs._digest.cache_clear()
    place = RunFolder(run.folder)
    try:
        return place.open(run)
    finally:
        place.close()


def refusal(run):
    with pytest.raises(InputError) as refused:
        state(run)
    assert not re.search("remove|delete", str(refused.value))
    return str(refused.value)


def contents(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_the_second_of_two_runs_of_one_name_writes_nothing(tmp_path):
    run = experiment(tmp_path, resume="never")
    first, second = RunFolder(run.folder), RunFolder(run.folder)
    first.open(run)
    before = contents(first.path)
    with pytest.raises(InputError, match="in use by process"):
        second.open(run)
    assert contents(first.path) == before
    first.create(run, [])
    with pytest.raises(InputError, match="holds a run already; go on with --resume, or choose another"):
        second.open(run)
    first.close()
    assert sorted(contents(first.path)) == ["config.yaml", "environment.json"]


def test_a_refused_run_leaves_no_folder(tmp_path):
    run = experiment(tmp_path)
    place = RunFolder(run.folder)
    assert place.open(run) == "absent"
    place.close()
    assert not place.path.exists()


def test_on_resume_a_session_is_added_and_nothing_else_is_written_again(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "fedstil_mpi.run", "my config.yaml"])
    run = begun(tmp_path)
    before, environment = contents(run.folder), environment_of(run)
    place = RunFolder(run.folder)
    assert place.open(run) == "interrupted"
    for _ in range(2):  # as when ranks are lost
        place.create(run, [{"rank": 1}], "MPI 4")
    place.finish()
    place.close()
    after = contents(run.folder)
    assert after["config.yaml"] == before["config.yaml"]
    first, second = environment_of(run).pop("sessions")
    assert environment_of(run) | {"sessions": [first]} == environment
    assert (first["ranks"], first["mpi"], "ended" in first) == (0, None, False)
    assert (second["ranks"], second["mpi"]) == (1, "MPI 4")
    assert first["began"] <= second["began"] <= second["ended"]
    assert second["command"] == "python -m fedstil_mpi.run 'my config.yaml'"


def test_an_environment_that_cannot_be_read_is_left_alone(tmp_path):
    run = begun(tmp_path)
    (run.folder / "environment.json").write_text("[1, 2")
    place = RunFolder(run.folder)
    place.open(run)
    place.create(run, [])
    place.finish()
    place.close()
    assert (run.folder / "environment.json").read_text() == "[1, 2"


def environment_of(run):
    return json.loads((run.folder / "environment.json").read_text())


def git(folder, *arguments):
    own = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", folder, *own, *arguments], check=True, capture_output=True)


def test_the_checkout_that_a_package_is_part_of(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    package = tmp_path / "checkout" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    assert provenance.checkout(package) is None
    git(package.parent, "init", "-q")
    assert provenance.checkout(package) is None  # in a checkout, but not of it
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-q", "-m", "first")
    clean = provenance.checkout(package)
    assert re.fullmatch("[0-9a-f]{40}", clean["commit"])
    assert not clean["dirty"]
    (package / "__init__.py").write_text("changed = True\n")
    assert provenance.checkout(package) == clean | {"dirty": True}


def test_a_slurm_job_is_named_as_squeue_does():
    assert provenance.slurm_job({}) is None
    assert provenance.slurm_job({"SLURM_JOB_ID": "17"}) == "17"
    array = {"SLURM_JOB_ID": "19", "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "2"}
    assert provenance.slurm_job(array) == "17_2"


def test_what_an_interrupted_beginning_has_left_is_no_run(tmp_path):
    run = begun(tmp_path)
    folder = run.folder
    (folder / "config.yaml").rename(folder / ".config.yaml.1234abcd.partial")
    assert state(run) == "absent"
    assert sorted(contents(folder)) == ["environment.json"]


def test_a_damaged_config_is_no_reason_to_give_up_a_run(tmp_path):
    run = begun(tmp_path)
    config = run.folder / "config.yaml"
    config.write_bytes(config.read_bytes()[:20])
    assert f"{run.folder} holds no config of a run that can be read" in refusal(run)
    config.unlink()
    (run.folder / "results.h5").touch()
    assert "bring its config.yaml back, or choose another name= or output=" in refusal(run)


def test_other_settings_are_refused(tmp_path):
    begun(tmp_path)
    assert "(seed = 1, now 2); give its settings, or choose another name=" in refusal(experiment(tmp_path, seed=2))
    assert state(experiment(tmp_path, checkpoint={"every": 3}, save_models=True)) == "interrupted"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_keeps_the_precision_that_auto_once_stood_for(tmp_path, precision):
    begun(tmp_path, model={"precision": precision})
    assert state(experiment(tmp_path, model={"precision": "auto"})) == "interrupted"
    other = {"float32": "bfloat16", "bfloat16": "float32"}[precision]
    assert f"(model.precision = {precision}, now {other})" in refusal(experiment(tmp_path, model={"precision": other}))


def test_what_a_complete_run_was_killed_before_removing_is_removed(tmp_path):
    run = begun(tmp_path)
    folder = run.folder
    RunFolder(folder).finish()
    (folder / "checkpoints" / "00001").mkdir(parents=True)
    (folder / ".results.h5.12345678.partial").touch()
    assert state(run) == "complete"
    assert sorted(contents(folder)) == ["complete", "config.yaml", "environment.json"]
    (folder / NAME).write_text("")  # nobody need hold a complete run
    assert state(run) == "complete"


# -- what the run reads ------------------------------------------------------------------------------------------------


def packed(path, seed):
    options = SyntheticOptions(
        clients=2, people_per_task=2, train_images=2, query_images=1, gallery_images=1, warmup_people=0
    )
    pack_stream(SyntheticStream(options, seed, tasks=1, height=32, width=16), path, height=32, width=16, about={})
    return path


def test_a_pack_is_the_same_wherever_it_lies(tmp_path, monkeypatch):
    path = packed(tmp_path / "a.h5", 1)
    begun(tmp_path, data={"kind": "pack", "path": str(path)})
    staged = Path(shutil.copy(path, tmp_path / "staged.h5"))
    monkeypatch.chdir(tmp_path)
    for same in (str(staged), "a.h5"):
        assert state(experiment(tmp_path, data={"kind": "pack", "path": same})) == "interrupted"
    path.unlink()
    packed(path, 2)
    assert "what data.path names is not what the run began with" in refusal(
        experiment(tmp_path, data={"kind": "pack", "path": str(path)})
    )


def test_a_weights_file_is_known_by_its_bytes(tmp_path):
    one, other = tmp_path / "one.pt", tmp_path / "other.pt"
    one.write_bytes(b"weights")
    other.write_bytes(b"weights")
    run = begun(tmp_path, model={"weights": str(one)})
    place = RunFolder(run.folder)
    same = experiment(tmp_path, model={"weights": str(other)})
    assert state(same) == "interrupted"
    assert place.settings(same) == place.settings(run)  # by which checkpoints are known
    other.write_bytes(b"Weights")
    assert "what model.weights names" in refusal(same)
    assert place.settings(same) != place.settings(run)
    assert "what model.weights names" in refusal(experiment(tmp_path, model={"weights": "none"}))


def test_a_folder_of_images_is_known_by_names_and_sizes(tmp_path):
    for root in ("a", "b"):
        (tmp_path / root / "person").mkdir(parents=True)
        for number in range(2):
            pixels = np.full((4, 4, 3), number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / root / "person" / f"{number}.png")
        (tmp_path / root / "Thumbs.db").write_text(root)
    begun(tmp_path, data={"kind": "folder", "path": str(tmp_path / "a")})
    moved = experiment(tmp_path, data={"kind": "folder", "path": str(tmp_path / "b")})
    assert state(moved) == "interrupted"
    (tmp_path / "b" / "person" / "1.png").unlink()
    assert "what data.path names" in refusal(moved)


def test_a_plugin_is_known_by_the_name_of_its_file(tmp_path):
    run = begun(tmp_path, data={"kind": "/here/mine.py", "path": "x"})
    assert state(replace(run, data=replace(run.data, kind="/there/mine.py"))) == "interrupted"
    assert "data.kind" in refusal(replace(run, data=replace(run.data, kind="/there/other.py")))


def test_no_message_advises_to_remove_what_may_be_whole():
    """Lines and columns of a table, and links, may go."""
    advice = re.compile(r"\b(remove|delete) (?!a line|one of the lines|the column|one extends|the link)")
    for path in Path(fedstil_mpi.__file__).parent.rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        texts = [ast.unparse(call) for call in calls if ast.unparse(call.func).endswith(("Error", "say", "_damaged"))]
        assert not [text for text in texts if advice.search(text.replace("' f'", "").replace("' '", ""))], path


@pytest.mark.parametrize(
    ("folder", "remedy"),
    [("00002", "the checkpoint before it"), ("start", "bring it back from a copy, or choose another")],
)
def test_a_damaged_checkpoint_has_one_before_it_and_the_start_model_none(tmp_path, folder, remedy):
    path = tmp_path / folder / "file.json"
    path.parent.mkdir()
    path.write_text("{")
    with pytest.raises(InputError, match=remedy):
        files.read_json(path)
