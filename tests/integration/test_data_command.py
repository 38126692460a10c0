"""The command that builds, inspects, verifies and unpacks: what it makes, and what it says of input that it cannot use."""

import errno
import hashlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fedstil_mpi.data.__main__ import main
from fedstil_mpi.data.building import disk_space, scratch
from fedstil_mpi.data.building.scratch import Scratch
from fedstil_mpi.data.files import listing
from fedstil_mpi.data.files.images import read
from fedstil_mpi.data.inspection.overlaps import overlaps
from fedstil_mpi.data.pack import PackStream, seal, write_pack
from fedstil_mpi.data.pack.manifest import ROLES, Manifest, Plan, Selection
from fedstil_mpi.data.streams.base import SPLITS
from fedstil_mpi.data.streams.folder import FolderStream

sys.path.append(str(Path(__file__).parents[2] / "bench"))
bench = import_module("building")

PEOPLE, SHOTS = 12, 4
SMALL = ("--clients=2", "--tasks=3", "--size=16x8")


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    squares = np.random.default_rng(seed).integers(0, 256, (8, 4, 3), np.uint8)
    Image.fromarray(squares.repeat(4, 0).repeat(4, 1)).save(path)


@pytest.fixture
def images(tmp_path):
    """A set in the naming of PKU-Reid: twelve people, each with four images by two cameras. One file is there twice."""
    root = tmp_path / "set"
    for person in range(PEOPLE):
        for camera in (1, 2):
            for shot in range(SHOTS):
                picture(root / f"{person:03}_{camera:02}_{shot}.png", (person, camera, shot))
    shutil.copy(root / "003_01_0.png", root / "003_01_9.png")
    return root


@pytest.fixture
def out(tmp_path):
    return tmp_path / "packs" / "made.h5"


def build(out, *sets, **options):
    """As on the command line, into small images."""
    arguments = [*SMALL, *(f"--set={name}={root}" for name, root in sets)]
    for name, value in options.items():
        values = value if isinstance(value, tuple) else () if value is True else (value,)
        arguments += [f"--{name.replace('_', '-')}", *map(str, values)]
    main(["build", *arguments, "--out", str(out)])
    return PackStream(out)


@pytest.fixture
def made(images, out, capsys):
    """A pack of the set."""
    build(out, ("pku", images))
    capsys.readouterr()
    return out


@pytest.fixture
def refused(capsys, tmp_path):
    """Call it; the one line that it leaves with. Nothing but what was there before is there afterwards."""

    def function(call, *arguments, **options):
        before = set(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as leaving:
            call(*arguments, **options)
        assert leaving.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert {path for path in set(tmp_path.rglob("*")) - before if not path.is_dir()} == set()
        return line.removeprefix("fedstil_mpi: ")

    return function


# What a build makes.


@pytest.mark.parametrize("protocol", ["closed", "open"])
def test_a_pack_holds_the_files_pixels_and_no_leak(images, out, protocol):
    pack = build(out, ("pku", images), protocol=protocol, train_people=0.7)
    manifest = pack.plan().manifest
    assert (pack.clients, pack.tasks, len(manifest)) == (2, 3, PEOPLE * 2 * SHOTS)
    for row, source in enumerate(manifest.source):
        label, name = source.split("/")
        assert label == "pku"
        assert manifest.file_sha256[row].tobytes() == hashlib.sha256((images / name).read_bytes()).digest()
        pixels = read(images / name, 16, 8)
        assert manifest.pixels_sha256[row].tobytes() == hashlib.sha256(pixels.tobytes()).digest()
    trained, tested = set(), set()
    for client in range(2):
        for number in range(3):
            task = pack.task(client, number)
            trained |= {image.tobytes() for image in task.train.pixels}
            tested |= {image.tobytes() for images in (task.query, task.gallery) for image in images.pixels}
    assert len(trained | tested) == PEOPLE * 2 * SHOTS  # every image is used
    assert not trained & tested
    assert overlaps(pack.plan()) == []


def test_labels_are_those_of_the_files(images, out):
    """The same person in the file's name is the same number, and so with cameras."""
    manifest = build(out, ("pku", images)).plan().manifest
    names = [source.removeprefix("pku/").split("_") for source in manifest.source]
    assert len({(name[0], person) for name, person in zip(names, manifest.person.tolist(), strict=True)}) == PEOPLE
    assert len({(name[1], camera) for name, camera in zip(names, manifest.camera.tolist(), strict=True)}) == 2
    assert len(set(manifest.person.tolist())) == PEOPLE


def test_equal_commands_give_equal_bytes(images, out, tmp_path):
    build(out, ("pku", images), threads=1)
    moved = tmp_path / "elsewhere"
    shutil.copytree(images, moved)
    build(tmp_path / "again.h5", ("pku", moved), threads=3)
    assert (tmp_path / "again.h5").read_bytes() == out.read_bytes()
    build(tmp_path / "other.h5", ("pku", images), seed=1)
    assert (tmp_path / "other.h5").read_bytes() != out.read_bytes()


def test_duplicates_are_left_out_and_counted(images, out, capsys):
    pack = build(out, ("pku", images))
    printed = capsys.readouterr().out
    assert f"pku: {PEOPLE * 2 * SHOTS + 1} images; duplicates left out: 1\n" in printed
    assert f"{out}: {PEOPLE * 2 * SHOTS} images of 12 people by 2 cameras, 2 clients x 3 tasks" in " ".join(
        printed.split()
    )
    assert "pku/003_01_0.png" in pack.plan().manifest.source
    assert "pku/003_01_9.png" not in pack.plan().manifest.source


def test_what_is_passed_over_is_counted_and_links_are_followed_if_asked(images, out, tmp_path, capsys):
    elsewhere = tmp_path / "elsewhere.png"
    (images / "003_01_9.png").rename(elsewhere)
    (images / "003_01_9.png").symlink_to(elsewhere)
    picture(images / "cover.png", 1)
    (images / "Thumbs.db").write_text("")
    build(out, ("pku", images))
    printed = capsys.readouterr().out
    for count, reason in ((1, listing.LEADS_OUT), (1, listing.OTHER_NAME), (1, listing.HIDDEN)):
        assert f"pku: passed over: {count} {reason}\n" in printed
    assert f"pku: {PEOPLE * 2 * SHOTS} images; duplicates left out: 0\n" in printed
    build(tmp_path / "followed.h5", ("pku", images), follow_links=True)
    assert f"pku: {PEOPLE * 2 * SHOTS + 1} images; duplicates left out: 1\n" in capsys.readouterr().out


def test_two_sets_of_one_reader(images, out, tmp_path):
    for person in range(PEOPLE):
        for camera in (1, 2):
            for shot in range(SHOTS):
                picture(tmp_path / "second" / f"{person:03}_{camera:02}_{shot}.png", (person, camera, shot, 7))
    pack = build(out, ("pku", images), ("pku", tmp_path / "second"), assign="set")
    manifest = pack.plan().manifest
    labels = [source.split("/")[0] for source in manifest.source]
    assert set(zip(labels, manifest.client.tolist(), strict=True)) == {("pku", 0), ("pku-2", 1)}
    assert len(set(manifest.person.tolist())) == 2 * PEOPLE
    assert pack.about["sets"] == "pku, pku-2"


def test_unreadable_files_are_left_out_if_asked(images, out, capsys):
    broken = images / "005_02_1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    pack = build(out, ("pku", images), skip_unreadable=True)
    assert f"unreadable files left out: 1 ({broken})" in capsys.readouterr().out
    assert len(pack.plan().manifest) == PEOPLE * 2 * SHOTS - 1
    assert "pku/005_02_1.png" not in pack.plan().manifest.source


def test_nothing_is_shown_of_the_progress_but_to_a_terminal(images, out, capsys):
    build(out, ("pku", images))
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "reading" not in printed.out
    assert "\x1b" not in printed.out


@pytest.mark.parametrize("protocol", ["closed", "open"])
@pytest.mark.parametrize("clients", [2, 4])
def test_real_images(tmp_path, protocol, clients):
    folder = os.environ.get("FEDSTIL_PKU")
    if not folder:
        pytest.skip("the environment variable FEDSTIL_PKU does not name a folder of PKU-Reid")
    pack = build(tmp_path / "pku.h5", ("pku", Path(folder)), clients=clients, tasks=6, protocol=protocol)
    assert (pack.clients, pack.tasks) == (clients, 6)
    assert overlaps(pack.plan()) == []


# What a build refuses.


def escaping(folder):
    (folder / "list.csv").write_text("path,person,camera\n../set/000_01_0.png,1,1\n")
    return ("csv", folder / "list.csv")


SETS = [
    (lambda folder: ("pku", folder / "absent"), "absent does not exist: expected"),
    (escaping, "leaves .*; expected one relative to that folder"),
    (lambda folder: ("pkuu", folder / "set"), "unknown set 'pkuu'; did you mean pku"),
    (lambda folder: ("pku", ""), "--set pku=; expected a set's name and its folder"),
]


@pytest.mark.parametrize(("make", "message"), SETS, ids=[message for _, message in SETS])
def test_refused_sets(images, out, tmp_path, refused, make, message):
    line = refused(build, out, make(tmp_path))
    assert re.search(message, line), line
    assert not out.exists()


OPTIONS = [
    ({"size": "128"}, "--size 128; expected height x width"),
    ({"size": "7x64"}, "of 8 to 9999 pixels"),
    ({"size": "12800x64"}, "--size 12800x64; expected"),
    ({"threads": 0}, "--threads 0; expected at least 1"),
    ({"threads": 10**9}, "expected at least 1 and at most 256"),
    ({"tasks": 2**31}, "expected one for each of 2147483648 tasks"),
    ({"clients": 13}, "13 clients for 12 people"),
    ({"split": (0.9, 0.2)}, "sum is at most 1"),
    ({"order": "time"}, "has no times of its images"),
    ({"protocol": "closd"}, "invalid choice: 'closd'"),
    ({"seed": "x"}, "invalid int value: 'x'"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS, ids=[str(options) for options, _ in OPTIONS])
def test_refused_options(images, out, refused, options, message):
    """Before an image is read: here none can be."""
    for image in images.iterdir():
        image.write_bytes(b"")
    line = refused(build, out, ("pku", images), **options)
    assert message in line
    assert not out.exists()


def test_refused_command_lines(refused):
    assert "the following arguments are required: COMMAND" in refused(main, [])
    assert "invalid choice: 'biuld'" in refused(main, ["biuld"])
    assert "the following arguments are required: --set, --out" in refused(main, ["build"])


def test_a_broken_image_is_named(images, out, refused):
    broken = images / "004_01_2.png"
    broken.write_bytes(broken.read_bytes()[:60])
    line = refused(build, out, ("pku", images))
    assert line.startswith(f"{broken} cannot be read as an image")
    assert line.endswith("or leave such files out with --skip-unreadable")


def test_a_set_that_is_a_copy_of_another(images, out, tmp_path, refused):
    shutil.copytree(images, tmp_path / "copy")
    line = refused(build, out, ("pku", images), ("pku", tmp_path / "copy"))
    assert line.startswith(f"nothing is left of the set pku-2: its {PEOPLE * 2 * SHOTS + 1} images are duplicates")


def test_a_pack_is_not_overwritten(images, made, refused):
    before = made.read_bytes()
    assert "exists" in refused(build, made, ("pku", images))
    assert made.read_bytes() == before


def test_a_disk_that_is_too_full_is_noticed_before_reading(images, out, refused, monkeypatch):
    for image in images.iterdir():
        image.write_bytes(b"")
    needed = (2 * PEOPLE * 2 * SHOTS + 2) * 16 * 8 * 3
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda folder: SimpleNamespace(free=needed - 1))
    assert "has 0.0 GB free, but 97 images of 16x8 need" in refused(build, out, ("pku", images))


@pytest.mark.parametrize("limit", [20_000, PEOPLE * 2 * SHOTS * 16 * 8 * 3 + 600])
def test_a_disk_that_fills_up(images, out, limit):
    """Where no file may grow beyond the limit: less than the scratch file needs, and less than the pack."""
    arguments = ["build", f"--set=pku={images}", "--out", str(out), *SMALL]
    done = subprocess.run(
        [sys.executable, "-m", "fedstil_mpi.data", *arguments],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert os.strerror(errno.EFBIG) in line
    assert os.listdir(out.parent) == []


# Ends from outside, in the midst of writing.


@pytest.fixture
def interruptible(monkeypatch):
    """Send this process a signal when half of the pack has been written."""

    def function(number):
        blocks = Scratch.blocks

        def interrupted(self, numbers):
            for done, block in enumerate(blocks(self, numbers)):
                if done == 10:
                    os.kill(os.getpid(), number)
                yield block

        monkeypatch.setattr(scratch, "BLOCK_BYTES", 5 * 16 * 8 * 3)
        monkeypatch.setattr(Scratch, "blocks", interrupted)

    return function


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_end_by_a_signal_leaves_nothing(images, out, interruptible, capsys, number, code):
    interruptible(number)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as leaving:
        build(out, ("pku", images))
    assert leaving.value.code == code
    assert os.listdir(out.parent) == []
    assert signal.getsignal(signal.SIGTERM) is before


KILLED = """
import os, signal, sys
from fedstil_mpi.data.__main__ import main
from fedstil_mpi.data.building import scratch

blocks = scratch.Scratch.blocks

def killed(self, numbers):
    for done, block in enumerate(blocks(self, numbers)):
        if done == 10:
            os.kill(os.getpid(), signal.SIGKILL)
        yield block

scratch.BLOCK_BYTES = 2000
scratch.Scratch.blocks = killed
main(sys.argv[1:])
"""


def test_what_a_killed_build_leaves_is_no_pack(images, out, refused):
    arguments = ["build", f"--set=pku={images}", "--out", str(out), *SMALL]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not out.exists()
    for left in out.parent.iterdir():
        assert left.name.startswith(".made.h5.")
        assert "is no pack" in refused(main, ["verify", str(left)])
    assert len(build(out, ("pku", images)).plan().manifest) == PEOPLE * 2 * SHOTS


# Packs that are given.


def of_another_version(path):
    with path.open("r+b") as file:
        file.seek(len(seal.MAGIC))
        file.write((seal.VERSION + 1).to_bytes(4, "little"))


def truncated(path):
    os.truncate(path, path.stat().st_size - 1)


BROKEN = [
    (of_another_version, f"version {seal.VERSION + 1}"),
    (truncated, "bytes, expected"),
    (Path.unlink, "does not exist"),
    (lambda path: path.write_text("no pack"), "is no pack"),
]


@pytest.mark.parametrize("command", ["inspect", "verify", "unpack"])
@pytest.mark.parametrize(("harm", "message"), BROKEN, ids=[message for _, message in BROKEN])
def test_refused_packs(made, tmp_path, refused, command, harm, message):
    harm(made)
    line = refused(main, [command, str(made), *([str(tmp_path / "tree")] if command == "unpack" else [])])
    assert message in line
    assert not (tmp_path / "tree").exists()


def test_verify_says_how_many_images_are_as_they_were(made, capsys):
    main(["verify", str(made)])
    assert capsys.readouterr().out == f"{made}: all {PEOPLE * 2 * SHOTS} images are as they were packed\n"


def test_verify_names_the_image_whose_pixels_changed(made, refused):
    row = 3
    place = made.read_bytes().index(PackStream(made).task(0, 0).train.pixels[row].tobytes())
    source = PackStream(made).plan().manifest.source[PackStream(made).plan().splits["train"].of(0)[row]]
    with made.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))
    line = refused(main, ["verify", str(made)])
    assert source in line


# Inspecting.


def test_inspect_counts_and_finds_no_leak(made, tmp_path, capsys):
    sheet, table = tmp_path / "sheet.png", tmp_path / "manifest.csv"
    main(["inspect", str(made), "--sheet", str(sheet), "--manifest", str(table)])
    printed = capsys.readouterr()
    assert printed.err == ""
    rows = [line.split() for line in printed.out.splitlines()]
    plan = PackStream(made).plan()
    for client in range(2):
        for task in range(3):
            sizes = [str(len(plan.splits[split].of(3 * client + task))) for split in SPLITS]
            assert [str(client), str(task), "4", "4", *sizes, "1"] in rows
    assert "no image is in two of train, query and gallery" in printed.out
    assert len(table.read_text().splitlines()) == 1 + len(plan.manifest)
    assert Image.open(sheet).format == "PNG"
    assert {path.name for path in tmp_path.iterdir()} >= {"sheet.png", "manifest.csv"}
    assert not list(tmp_path.glob(".*"))


def test_inspect_warns_of_the_leak_of_the_reference_protocol(images, out, capsys):
    # With these shares and four images an image is in train and query: 0.7 * 4 is no whole number.
    build(out, ("pku", images), protocol="reference_code", split=(0.7, 0.2))
    main(["inspect", str(out)])
    assert "images are in train and in query, for example pku/" in capsys.readouterr().err


def test_inspect_finds_duplicates_in_folders_and_broken_files(made, tmp_path, capsys):
    tree = tmp_path / "tree"
    main(["unpack", str(made), str(tree)])
    image = next((tree / "task-0-0" / "train").rglob("*.png"))
    person = next((tree / "task-1-2" / "gallery").iterdir())
    shutil.copy(image, person / "other.png")
    (person / "broken.png").write_bytes(image.read_bytes()[:50])
    capsys.readouterr()
    main(["inspect", str(tree)])
    printed = capsys.readouterr()
    (unreadable, overlap) = printed.err.splitlines()
    assert str(person / "broken.png") in unreadable
    assert "1 images are in train and in gallery" in overlap
    assert f"{image.relative_to(tree)} in train" in overlap
    assert f"{(person / 'other.png').relative_to(tree)} in gallery" in overlap
    assert "unreadable files: 1" in printed.out


@pytest.mark.parametrize("option", ["--sheet", "--manifest"])
def test_inspect_refuses_files_that_cannot_be_written(made, tmp_path, capsys, option):
    with pytest.raises(SystemExit) as leaving:
        main(["inspect", str(made), option, str(tmp_path / "absent" / "file")])
    assert leaving.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "absent/file (No such file or directory); name another file" in line


# Unpacking.


def equal(task, other):
    for split in SPLITS:
        for name in ("pixels", "pids", "cameras"):
            np.testing.assert_array_equal(getattr(getattr(task, split), name), getattr(getattr(other, split), name))


@pytest.mark.parametrize("emptied", [False, True])
def test_a_folder_gives_the_pack_back(made, tmp_path, emptied):
    tree = tmp_path / "tree"
    if emptied:
        tree.mkdir()
    main(["unpack", str(made), str(tree)])
    pack, folder = PackStream(made), FolderStream(tree, 16, 8)
    assert (folder.clients, folder.tasks) == (2, 3)
    for client in range(2):
        for task in range(3):
            ours, theirs = pack.task(client, task), folder.task(client, task)
            for split in SPLITS:  # a folder has them by person, then in the order of the pack
                images = getattr(ours, split)
                order = images.pids.argsort(kind="stable")
                for name in ("pixels", "pids", "cameras"):
                    np.testing.assert_array_equal(getattr(images, name)[order], getattr(getattr(theirs, split), name))
    assert not list(tmp_path.glob(".*"))


HOSTILE = (
    "../../../escaped",
    "/etc/escaped.png",
    "a/../../../escaped",
    "..",
    "",
    ".hidden",
    "x_c7_y.png",
    "c8_.png",
    "c9s1_1.png",
    "名前/写真.jpg",
    "line\nbreak\0zero",
    "a" * 5000,
    "same/0001.png",
    "same/0001.png",
)


@pytest.mark.parametrize("camera", [-1, 3])
def test_hostile_sources_do_no_harm(tmp_path, camera):
    count = len(HOSTILE)
    pixels = np.random.default_rng(0).integers(0, 256, (3 * count, 8, 8, 3), np.uint8)
    hashes = np.array([np.frombuffer(hashlib.sha256(image).digest(), np.uint8) for image in pixels])
    zero = np.zeros(3 * count, np.int64)
    role = np.repeat(np.arange(3, dtype=np.uint8), count)
    manifest = Manifest(zero, zero, role, zero, zero + camera, 3 * HOSTILE, np.zeros_like(hashes), hashes)
    splits = {s: Selection(np.flatnonzero(role == ROLES.index(s)), np.array([0, count])) for s in SPLITS}
    inner = tmp_path / "a" / "b" / "c"
    inner.mkdir(parents=True)
    write_pack(inner / "pack.h5", Plan(1, 1, manifest, splits), [pixels], height=8, width=8, about={})
    main(["unpack", str(inner / "pack.h5"), str(inner / "tree")])
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(inner / "tree")]
    assert outside == [inner / "pack.h5"]
    task = FolderStream(inner / "tree", 8, 8).task(0, 0)
    equal(task, PackStream(inner / "pack.h5").task(0, 0))


def test_unpack_refuses_a_folder_that_holds_something(made, tmp_path, refused):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "mine.txt").touch()
    assert "tree is not empty" in refused(main, ["unpack", str(made), str(tmp_path / "tree")])
    assert os.listdir(tmp_path / "tree") == ["mine.txt"]


def test_an_unfinished_folder_is_removed(made, tmp_path, refused):
    with made.open("r+b") as file:  # the last client's pixels
        file.seek(seal.check(made).end - 1)
        byte = file.read(1)[0]
        file.seek(seal.check(made).end - 1)
        file.write(bytes([byte ^ 1]))
    assert "is damaged" in refused(main, ["unpack", str(made), str(tmp_path / "tree")])
    assert not (tmp_path / "tree").exists()


# Packing streams.

CONFIG = """
seed: 5
data:
  kind: synthetic
  height: 32
  width: 16
  tasks: 2
  synthetic: {clients: 2, people_per_task: 3, warmup_people: 2, warmup_images: 2}
"""


def test_a_configs_stream_is_packed(tmp_path, capsys):
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    out = tmp_path / "tiny.h5"
    main(["pack", str(tmp_path / "tiny.yaml"), "data.synthetic.train_images=3", "--out", str(out)])
    assert "2 clients x 2 tasks, 4 warm-up images" in " ".join(capsys.readouterr().out.split())
    pack = PackStream(out)
    assert (pack.about["seed"], pack.height, pack.width) == ("5", 32, 16)
    assert len(pack.task(0, 0).train) == 3 * 3
    main(["unpack", str(out), str(tmp_path / "tree")])
    assert "warm-up images stay in the pack" in capsys.readouterr().out
    other = tmp_path / "folder.h5"
    main(
        ["pack", str(tmp_path / "tiny.yaml"), "data.kind=folder", f"data.path={tmp_path / 'tree'}", "--out", str(other)]
    )
    for client in range(2):
        for task in range(2):
            equal(PackStream(other).task(client, task), pack.task(client, task))


def test_refused_configs(tmp_path, refused):
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    out = ["--out", str(tmp_path / "tiny.h5")]
    assert "absent.yaml" in refused(main, ["pack", str(tmp_path / "absent.yaml"), *out])
    assert "did you mean" in refused(main, ["pack", str(tmp_path / "tiny.yaml"), "data.heigth=3", *out])
    assert "absent" in refused(
        main, ["pack", str(tmp_path / "tiny.yaml"), "data.kind=folder", "data.path=absent", *out]
    )


# What it takes.


def test_the_command_needs_neither_torch_nor_mpi():
    program = "import sys, fedstil_mpi.data.__main__\nprint({'torch', 'mpi4py', 'torchvision'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("images", "size", "most"),
    [(2_000, "256x128", 150e6), pytest.param(100_000, "64x32", 400e6, marks=pytest.mark.long)],
)
def test_memory_stays_small_however_many_images_there_are(tmp_path, images, size, most):
    """An image's share of the memory is not its pixels, which are 200 and 600 MB in all."""
    root, out = tmp_path / "many", tmp_path / "many.h5"
    bench.make_set(root, images, 32, 16)
    _, peak = bench.build(root, out, "--clients=5", "--tasks=6", f"--size={size}")
    assert peak < most
    assert len(PackStream(out).plan().manifest) > 0.99 * images  # some of the files may be equal
