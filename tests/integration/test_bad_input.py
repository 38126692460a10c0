"""What a user gets for input that cannot be used: exit code 2 and one line that says what is needed.

The words of each line are in the unit tests. Here they come from each place of a run that may find something wrong, in one job
of a server and a rank with all clients, each of which goes on to the next wrong input.
"""

import shutil

import numpy as np
import pytest
from PIL import Image

from support import SMALL
from support.launch import alone, codes, lines_of, play

FOLDER = ["data.kind=folder", "data.height=32", "data.width=16", "train.batch=2"]
REFUSED = {
    "override": (["=5"], "argument '=5' is no override; expected section.key=value"),
    "key": (["train.lrr=1"], "unknown config key train.lrr; did you mean train.lr?"),
    "value": (["train.lr=fast"], "config key train.lr: Value 'fast'"),
    "method": (["method.name=fedstill"], "unknown method 'fedstill'; did you mean fedstil?"),
    "preset": (["method.preset=bets"], "method fedstil has no preset 'bets'; choose one of best, "),
    "effect": (
        [SMALL, "method.name=ditto", "serving.average=0.5"],
        "serving.average = 0.5 changes nothing with method ditto",
    ),
    "option": (["method.alhpa=1"], "unknown config key method.alhpa; did you mean method.alpha?"),
    "stream": (["data.kind=pku", "data.path=nowhere"], "nowhere cannot be listed (No such file or directory): "),
    "images": ([*FOLDER, "data.path={root}/empty"], "{root}/empty has no task folders: expected task-0-0"),
    "clients": (["rounds.clients_per_round=4"], "rounds.clients_per_round = 4, but there are 3 clients"),
    "machine": (["placement.device=auto", "placement.gpus_per_node=4"], "gpus_per_node is 4, but "),
    "classes": (
        [*FOLDER, "data.path={root}/images", "model.num_classes=1"],
        "model.num_classes = 1 for 2 people to train on; set it to 2 or more",
    ),
    "image": (  # which the clients' rank alone can see
        [*FOLDER, SMALL, "data.path={root}/broken"],
        "{root}/broken/task-0-0/query/14/14_c0_query.png cannot be read as an image",
    ),
    "backbone": (["model.backbone=mobilenet_v3"], "unknown backbone 'mobilenet_v3'; did you mean mobilenet_v2? choose"),
    "weights": (["model.weights=nowhere.pt"], "weights file nowhere.pt does not exist; set model.weights to "),
    "run": (
        ["name=earlier"],
        "{root}/earlier holds a run already; go on with --resume, or choose another name= or output=",
    ),
    "output": (
        ["output={root}/earlier/metrics.jsonl"],
        "{root}/earlier/metrics.jsonl/output cannot be used (Not a directory); set output= or name=",
    ),
}
"""Where -> overrides, and how the line begins."""


def write_images(root):
    """One client, one task and two people."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 2), ("query", 1), ("gallery", 1)):
        for person in (3, 14):
            folder = root / "task-0-0" / split / str(person)
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (32, 16, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{person}_c{number}_{split}.png")


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """The folder in which all was tried, and what was said."""
    root = tmp_path_factory.mktemp("refused")
    write_images(root / "images")
    shutil.copytree(root / "images", root / "broken")
    broken = root / "broken" / "task-0-0" / "query" / "14" / "14_c0_query.png"
    broken.write_bytes(broken.read_bytes()[:100])
    for folder in ("empty", "earlier"):
        (root / folder).mkdir()
    (root / "earlier" / "metrics.jsonl").write_text("{}\n")
    tried = {name: [override.format(root=root) for override in of] for name, (of, _) in REFUSED.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        done = play(2, root, tried)
    assert codes(done) == dict.fromkeys(REFUSED, 2)
    assert "Traceback" not in done.stderr
    return root, lines_of(done.stderr)


def test_each_is_said_once_by_all_ranks(refused):
    root, lines = refused
    assert len(lines) == len(REFUSED)
    for line, (_, expected) in zip(lines, REFUSED.values(), strict=True):
        assert line.startswith(f"fedstil_mpi: {expected.format(root=root)}")


def test_nothing_was_written(refused):
    root, _ = refused
    assert {path.name for path in root.iterdir()} == {"images", "broken", "empty", "earlier"}
    assert [path.name for path in (root / "earlier").iterdir()] == ["metrics.jsonl"]
    assert (root / "earlier" / "metrics.jsonl").read_text() == "{}\n"


def test_the_commands_exit_code(tmp_path):
    done = alone("-m", "fedstil_mpi.run", "nowhere.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "fedstil_mpi: config file nowhere.yaml does not exist; give the path of a YAML file\n"
    assert not list(tmp_path.iterdir())
