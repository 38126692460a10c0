"""What a user gets for input that cannot be used: exit code 2 and one line that says what is needed.

Slow are those cases that only show when torch is there.
"""

import os

import numpy as np
import pytest
from PIL import Image

from support.launch import alone, mpirun

PEOPLE = (3, 14)


@pytest.fixture
def images(tmp_path):
    """A folder with one client, one task and two people."""
    root = tmp_path / "images"
    generator = np.random.default_rng(0)
    for split, count in (("train", 2), ("query", 1), ("gallery", 1)):
        for person in PEOPLE:
            folder = root / "task-0-0" / split / str(person)
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (32, 16, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{person}_c{number}_{split}.png")
    return root


@pytest.fixture
def refused(tmp_path):
    """Run the program on the text of a config file; the line it refuses it with."""

    def function(text, *overrides):
        (tmp_path / "config.yaml").write_text(text)
        return only_line(run(tmp_path, "config.yaml", *overrides))

    return function


def run(folder, *arguments):
    """The program in a folder, as a single rank without mpirun."""
    return alone("-m", "fedstil_mpi.run", *arguments, cwd=folder)


def only_line(done):
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("fedstil_mpi: ")
    assert "Traceback" not in done.stdout
    return line.removeprefix("fedstil_mpi: ")


def of_folder(images, **model):
    """A config that trains on the images, as briefly as can be."""
    settings = ", ".join(f"{key}: {value}" for key, value in model.items())
    return f"""
        data: {{kind: folder, path: {images}, height: 32, width: 16}}
        model: {{{settings}}}
        rounds: {{per_task: 1}}
        train: {{steps: 1, batch: 2}}
    """


# -- the config --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("train: {lrr: 1}", "unknown config key train.lrr; did you mean train.lr?"),
        ("train: {lr: fast}", "config key train.lr: Value 'fast'"),
        ("train: {softmax: al}", "train.softmax = 'al'; did you mean all?"),
        ("method: {name: fedstill}", "unknown method 'fedstill'; did you mean fedstil?"),
        ("method: {preset: bets}", "method fedstil has no preset 'bets'; choose one of best, "),
        ("method: {alhpa: 1}", "unknown config key method.alhpa; did you mean method.alpha?"),
        ("extends: base.yaml", "config file base.yaml (which config.yaml extends) does not exist"),
        ("output: !!python/object/apply:os.mkdir [made]", "config file config.yaml is not plain YAML: "),
        ("data: {kind: folder, path: nowhere}", "nowhere cannot be listed (No such file or directory): "),
        ("data: {kind: pku, path: nowhere}", "nowhere cannot be listed (No such file or directory): "),
        ("data: {synthetic: {clients: 1}}", "data.synthetic.clients = 1; expected a finite number, at least 2"),
    ],
)
def test_config(refused, tmp_path, text, needed):
    assert refused(text).startswith(needed)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_config_file_that_is_not_there(tmp_path):
    line = only_line(run(tmp_path, "nowhere.yaml"))
    assert line == "config file nowhere.yaml does not exist; give the path of a YAML file"


def test_argument_that_is_no_override(refused):
    assert refused("", "seed", "2") == "argument 'seed' is no override; expected section.key=value"


# -- the data ----------------------------------------------------------------------------------------------------------


def test_folder_without_tasks(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    assert refused("data: {kind: folder, path: empty}").startswith("empty has no task folders: expected task-0-0")


def test_task_without_images(refused, images):
    (images / "task-0-1").mkdir()
    for split in ("train", "query", "gallery"):
        (images / "task-0-1" / split).mkdir()
    assert refused(of_folder(images)).startswith(f"{images}/task-0-1/train has no images")


@pytest.mark.slow
def test_people_that_the_classifier_has_no_rows_for(refused, images):
    line = refused(of_folder(images, num_classes=1))
    assert line.startswith("model.num_classes = 1 for 2 people to train on; set it to 2 or more")


@pytest.mark.slow
def test_image_that_cannot_be_read(refused, images):
    broken = images / "task-0-0" / "query" / "14" / "14_c0_query.png"
    broken.write_bytes(broken.read_bytes()[:100])
    assert refused(of_folder(images)).startswith(f"{broken} cannot be read as an image")


# -- the model ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_unknown_backbone(refused, images):
    line = refused(of_folder(images, backbone="mobilenet_v3"))
    assert line.startswith("unknown backbone 'mobilenet_v3'; did you mean mobilenet_v2? choose one of ")


@pytest.mark.slow
def test_weights_file_that_is_not_there(refused, images):
    line = refused(of_folder(images, weights="nowhere.pt"))
    assert line.startswith("weights file nowhere.pt does not exist: set model.weights to ")


# -- the machine -------------------------------------------------------------------------------------------------------


def test_more_gpus_than_there_are(refused, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    line = refused("placement: {gpus_per_node: 4}")
    assert line.startswith("gpus_per_node is 4, but ")
    assert "has 0" in line


@pytest.mark.slow
def test_folder_that_holds_another_run(refused, tmp_path):
    earlier = tmp_path / "runs" / "experiment" / "metrics.jsonl"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("{}\n")
    assert refused("").startswith(
        "runs/experiment holds a run already; go on with --resume, choose another name= or output="
    )
    assert [path.name for path in earlier.parent.iterdir()] == ["metrics.jsonl"]
    assert earlier.read_text() == "{}\n"


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_output_folder_that_cannot_be_made(refused, tmp_path):
    (tmp_path / "shut").mkdir(mode=0o500)
    assert refused("output: shut/runs").startswith("cannot make the run folder shut/runs/experiment: Permission denied")


@pytest.mark.slow
def test_output_below_a_file(refused, tmp_path):
    (tmp_path / "runs").write_text("")
    assert refused("").startswith("cannot make the run folder runs/experiment: Not a directory; set output=")


# -- several ranks -----------------------------------------------------------------------------------------------------


def test_several_ranks_say_it_once(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("train: {lrr: 1}")
    done = mpirun(3, ["-m", "fedstil_mpi.run", config])
    assert done.returncode == 2
    assert done.stderr.count("unknown config key train.lrr; did you mean train.lr?") == 1
    assert done.stderr.count("fedstil_mpi: ") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_mistake_that_one_rank_alone_can_see_is_said_once(tmp_path, images):
    broken = images / "task-0-0" / "train" / "3" / "3_c0_train.png"
    broken.write_bytes(b"no image")
    config = tmp_path / "config.yaml"
    config.write_text(of_folder(images) + f"\n        output: {tmp_path}/runs")
    done = mpirun(2, ["-m", "fedstil_mpi.run", config], timeout=120)
    assert done.returncode == 2
    assert done.stderr.count("fedstil_mpi: ") == 1
    assert f"fedstil_mpi: {broken} cannot be read as an image" in done.stderr
    assert "Traceback" not in done.stderr
