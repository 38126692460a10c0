"""What README.md and docs/ tell a reader to type is run here, or it is said who else runs it, or why nobody does."""

import json
import re

import pytest

from support import SMALL, TINY, made_sets
from support.documents import DOCUMENTS, ROOT, blocks, commands, example
from support.launch import SCRIPTS, alone

NOT_HERE = {
    "make": "would install all of it once more; continuous integration begins with it",
    "git clone": "needs the network",
    "sbatch": "tests/slurm submits these files where there is a Slurm, tests/unit/test_jobs.py runs them without",
    "qsub": "tests/unit/test_jobs.py runs the file",
    "flux": "tests/unit/test_jobs.py runs the file",
    "jobs/local.sh": "tests/unit/test_jobs.py runs it",
    "apptainer": "there is no Apptainer where the tests run",
    "mpirun -n 6 nsys": "needs a GPU and Nsight Systems",
    "mpirun -n 6 --mca pml_monitoring_enable": "tests/integration/test_run.py holds the ledger against MPI's monitoring",
    "python -m cProfile": "Python's own profiler",
    "python -m fedstil_mpi.check_method": "tests/integration/test_check_method.py runs it",
}
"""How a command begins -> why it is not run here."""
QUICK = [
    *("train.steps=1", "train.batch=8", "warmup.steps=0", "model.split=null"),
    *("placement.device=cpu", "placement.threads=1", "checkpoint.every=0"),
]
OWN = ["model.weights=none", SMALL]
DRAWN = [
    *(f"data.synthetic.{key}" for key in ("clients=3", "people_per_task=4", "train_images=3", "query_images=1")),
    *("data.synthetic.gallery_images=1", "data.tasks=2", "data.height=32", "data.width=16"),
]


def is_elsewhere(line):
    return any(line.startswith(beginning) for beginning in NOT_HERE)


TYPED = {line: words for line, words in commands().items() if not is_elsewhere(line)}


def module_and_arguments(words):
    """What comes behind `python -m`, as a small run; a launcher is left out, as the number of ranks changes nothing."""
    module, *arguments = words[words.index("-m") + 1 :]
    if module in ("fedstil_mpi.run", "fedstil_mpi.plan", "fedstil_mpi.compare"):
        drawn = arguments[0].startswith("configs/")
        arguments += [*QUICK, *(DRAWN if drawn else OWN[:1])]
        arguments += [] if any(word.startswith("model.backbone") for word in words) else OWN[1:]
    if module == "fedstil_mpi.compare":
        arguments += ["--seeds", "1", *(["--only", "FedAvg", "FedSTIL"])]
    return [module, *(argument.replace("=/data/", "=data/") for argument in arguments)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with everything that the documents take for granted."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "configs").symlink_to(ROOT / "configs")
    made_sets.market1501(folder / "data" / "Market-1501", people=40)
    made_sets.msmt17(folder / "data" / "MSMT17_V1", people=40)
    for camera in ("door", "yard"):
        for person in range(8):
            for shot in range(4):
                made_sets.save(folder, f"photos/{camera}/person{person}/{shot}.png")
                made_sets.save(folder, f"shots/{camera}-{person}-{shot}.png")
    (folder / "dashed.py").write_text(example("<camera>"))
    (folder / "three.py").write_text(example("convolutions"))
    (folder / "cfg.yaml").write_text("name: cfg\n")
    for name, text in zip(
        ("photos.yaml", "methods.yaml"), blocks(ROOT / "docs" / "own_images.md", "yaml"), strict=True
    ):
        (folder / name).write_text(text)
    return folder


def test_every_command_is_run_or_it_is_said_why_not():
    assert len(TYPED) > 12
    assert [line for line, words in TYPED.items() if "-m" not in words] == []
    unused = [beginning for beginning in NOT_HERE if not any(line.startswith(beginning) for line in commands())]
    assert unused == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.slow
def test_commands_do_what_the_documents_say(desk):
    runs = [
        ["fedstil_mpi.run", str(TINY), SMALL, f"name={name}", f"seed={seed}", "save_models=true"]
        for seed, name in enumerate("xy")
    ]
    typed = [*runs, *map(module_and_arguments, sorted(TYPED.values(), key=in_order))]
    done = alone(SCRIPTS / "type_in.py", json.dumps(typed), cwd=desk)
    assert done.returncode == 0, done.stderr
    codes = json.loads(done.stdout.splitlines()[-1])
    assert [words for words, code in zip(typed, codes, strict=True) if code] == [], done.stderr
    left = (
        "photos.h5",
        "streams/mix.h5",
        "sheet.png",
        "shots.h5",
        "features.h5",
        "heat/explain.csv",
        "report/report.md",
    )
    assert [name for name in left if not (desk / name).is_file()] == []
    assert (desk / "runs" / "photos-methods" / "report" / "report.md").is_file()

    pytest.importorskip("pandas", reason="pandas is not installed")
    (code,) = blocks(ROOT / "docs" / "own_images.md", "python")
    plotted = alone("-c", code, cwd=desk, MPLBACKEND="agg")
    assert plotted.returncode == 0, plotted.stderr
    assert (desk / "rank1.png").is_file()


def in_order(words):
    """What builds comes before what uses; `sorted` keeps the rest as it is written."""
    return 0 if "build" in words else 1
