"""Packs: what is written is what is read, byte for byte, or else a clear refusal; and never half of a file."""

import errno
import fcntl
import os
import resource
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.config.sections import Data
from fedstil_mpi.data.pack import PackStream, seal, target, verify, write_pack
from fedstil_mpi.data.pack.format import NUMBERS, read
from fedstil_mpi.data.pack.manifest import Manifest, Plan, Selection
from fedstil_mpi.data.pack.pixels import copied
from fedstil_mpi.data.sources import open_stream
from fedstil_mpi.results.writing.inputs import contents
from fedstil_mpi.util.errors import InputError
from support.made_packs import (
    ABOUT,
    HEIGHT,
    MANIFEST,
    PIXELS,
    PLAN,
    ROWS,
    SPLITS,
    WIDTH,
    hashed,
    numbers,
    resealed,
    write,
)


@pytest.fixture
def pack(tmp_path):
    path = tmp_path / "mix.h5"
    write(path)
    return path


def refused(path, message):
    """In one line that names the file."""
    with pytest.raises(InputError, match=message) as refusal:
        PackStream(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


# -- what is written is what is read -----------------------------------------------------------------------------------


def test_tasks(pack):
    stream = PackStream(pack)
    assert (stream.clients, stream.tasks, stream.height, stream.width) == (2, 1, HEIGHT, WIDTH)
    assert stream.about == ABOUT
    for split, cells in ROWS.items():
        for client, rows in enumerate(cells):
            images = getattr(stream.task(client, 0), split)
            assert np.array_equal(images.pixels, PIXELS[rows])
            assert (images.pixels.dtype, images.pixels.shape) == (np.uint8, (len(rows), HEIGHT, WIDTH, 3))
            assert images.pixels.flags.writeable
            assert images.pids.dtype == images.cameras.dtype == np.int64
            assert images.pids.tolist() == MANIFEST.person[rows].tolist()
            assert images.cameras.tolist() == MANIFEST.camera[rows].tolist()
            assert stream.labels(client, 0)[split].tolist() == images.pids.tolist()
    assert stream.pids(0, 0).tolist() == [3, 5]
    warmup = stream.warmup()
    assert np.array_equal(warmup.pixels, PIXELS[:2])
    assert (warmup.pids.tolist(), warmup.cameras.tolist()) == ([900, 901], [0, 1])


def test_plan(pack):
    plan = PackStream(pack).plan()
    assert (plan.clients, plan.tasks, plan.manifest.source) == (2, 1, MANIFEST.source)
    for name in ("client", "task", "role", "person", "camera", "file_sha256", "pixels_sha256"):
        stored, given = getattr(plan.manifest, name), getattr(MANIFEST, name)
        assert stored.dtype == given.dtype
        assert np.array_equal(stored, given)
    for split, selection in SPLITS.items():
        assert np.array_equal(plan.splits[split].rows, selection.rows)
        assert np.array_equal(plan.splits[split].offsets, selection.offsets)


def test_no_warmup(tmp_path):
    write(tmp_path / "x.h5", replace(PLAN, manifest=replace(MANIFEST, role=MANIFEST.role % 3)))
    assert PackStream(tmp_path / "x.h5").warmup() is None


def test_it_is_hdf5(pack):
    with h5py.File(pack) as file:
        assert np.array_equal(file["pixels"][()], PIXELS)
        assert file["pixels"].chunks is None
        assert file["manifest/source"].asstr()[()].tolist() == list(MANIFEST.source)
        assert dict(file.attrs) == {"clients": 2, "tasks": 1}


def test_the_same_input_gives_the_same_bytes(pack):
    time.sleep(1.1)  # HDF5 has time stamps in seconds
    write(pack.with_name("again.h5"), pixels=iter(PIXELS[:, None]))
    assert pack.read_bytes() == pack.with_name("again.h5").read_bytes()


def test_any_rows_are_copied(pack):
    image_data, generator = read(pack), np.random.default_rng(3)
    for _ in range(100):
        rows = generator.integers(0, 11, generator.integers(0, 30))
        rows = np.concatenate([np.arange(row, min(row + 3, 11)) for row in rows]) if len(rows) else rows
        assert np.array_equal(copied(pack, image_data, rows), PIXELS[rows])


def test_nothing_stays_open_and_locks_are_ignored(pack):
    with pack.open("r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        stream = PackStream(pack)
        stream.task(0, 0)
        assert verify(pack) == 11
    targets = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    assert str(pack) not in targets
    assert str(pack) not in Path("/proc/self/maps").read_text()


def test_pixels_pass_block_by_block(tmp_path):
    """Neither writing nor checking holds more than a few blocks; reading a task copies its rows alone."""
    shape, count, step = (64, 32), 2000, 50
    block = np.zeros((step, *shape, 3), np.uint8)
    digests = np.broadcast_to(hashed(block[:1]), (count, 32)).copy()
    columns = {name: np.zeros(count, np.int64) for name in ("client", "task", "person", "camera")}
    manifest = Manifest(**columns, role=np.zeros(count, np.uint8), source=("x",) * count, file_sha256=digests, pixels_sha256=digests)  # fmt: skip
    selection = Selection(np.arange(step), numbers(0, step))
    plan = Plan(1, 1, manifest, dict.fromkeys(("train", "query", "gallery"), selection))

    def peak(work):
        tracemalloc.start()
        work()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    path, whole = tmp_path / "x.h5", block.nbytes * count // step
    blocks = (block.copy() for _ in range(count // step))
    kwargs = {"height": shape[0], "width": shape[1], "about": {}}
    assert peak(lambda: write_pack(path, plan, blocks, **kwargs)) < whole / 6
    assert peak(lambda: verify(path)) < whole / 3
    assert peak(lambda: PackStream(path).task(0, 0)) < whole / 6


# -- what is not as it was written -------------------------------------------------------------------------------------


def test_no_byte_beside_the_pixels_can_change(tmp_path):
    """One after another, each bit of the seal and one bit of each byte of the rest."""
    pack = tmp_path / "mix.h5"
    write(pack, about={"short": "text"})
    whole, pixels = pack.read_bytes(), seal.check(pack)
    assert pixels.length == PIXELS.nbytes
    for place in [*range(pixels.start), *range(pixels.end, len(whole))]:
        for bit in range(8) if place < 80 else (place % 8,):
            with pack.open("r+b") as file:
                file.seek(place)
                file.write(bytes([whole[place] ^ 1 << bit]))
            with pytest.raises(InputError, match=r"mix\.h5 (is damaged|is no pack|is a pack of version|is cut short)"):
                seal.check(pack)
        with pack.open("r+b") as file:
            file.seek(place)
            file.write(whole[place : place + 1])
    assert PackStream(pack).about == {"short": "text"}
    with pack.open("r+b") as file:
        file.seek(-1, 2)
        file.write(bytes([whole[-1] ^ 1]))
    refused(pack, "is damaged: what it holds beside its pixels does not have the SHA-256 in its seal; copy it again")


@pytest.mark.parametrize("keep", [16, 20, 100, 511, 512, 2000, -200, -1])
def test_cut_short(pack, keep):
    whole = pack.read_bytes()
    pack.write_bytes(whole[:keep])
    expected = f"{len(whole):,}" if len(whole[:keep]) >= 512 else "more than 512"
    refused(pack, f"is cut short.* it has {len(whole[:keep]):,} bytes, expected {expected}; copy it again or build it")


def test_too_long(pack):
    with pack.open("ab") as file:
        file.write(b"\0")
    refused(pack, "is cut short or too long: it has")


def test_another_version(pack):
    whole = bytearray(pack.read_bytes())
    whole[16] = 2
    pack.write_bytes(whole)
    refused(pack, "is a pack of version 2, expected version 1: build it again, or use the release")


def test_a_pack_for_each_seed(tmp_path):
    write(tmp_path / "mix-7.h5")
    data = Data(kind="pack", path=str(tmp_path / "mix-{seed}.h5"), height=HEIGHT, width=WIDTH)
    assert open_stream(data, 7).clients == 2
    assert "data.path" in contents(Experiment(seed=7, data=data))
    assert "data.path" not in contents(Experiment(seed=8, data=data))
    with pytest.raises(InputError, match=r"mix-8\.h5 does not exist"):
        open_stream(data, 8)


def test_no_pack(tmp_path):
    path = tmp_path / "x.h5"
    refused(path, "does not exist; expected a pack written by fedstil_mpi: correct the path")
    path.write_bytes(b"")
    refused(path, "is no pack: it begins with b'', expected")
    path.write_text("version https://example.org/spec/v1\n" * 100)
    refused(path, "is no pack: it begins with b'version ', expected .*; correct the path")
    path.unlink()
    with h5py.File(path, "w") as file:
        file["pixels"] = PIXELS
    refused(path, "is no pack: it begins with .*HDF")
    path.unlink()
    path.mkdir()
    refused(path, "is a folder; expected a pack")
    path.rmdir()
    os.mkfifo(path)
    refused(path, "is no file; expected a pack")
    refused(tmp_path / ("x" * 300), r"cannot be read \(File name too long\)")


def out_of_range(file):
    file["splits/train/rows"][0] = 11


def without_a_column(file):
    del file["manifest/person"]


def without_pixels(file):
    del file["pixels"]


def other_pixels(file):
    del file["pixels"]
    file.create_dataset("pixels", data=PIXELS, chunks=True)


def fewer_offsets(file):
    file.attrs["tasks"] = 2


def instead(name, **how):
    """Another data set of this name."""

    def change(file):
        del file[name]
        file.create_dataset(name, **how)

    return change


def linked(name, link):
    def change(file):
        del file[name]
        file[name] = link

    return change


def claims(file):
    """10^12 images, all columns in accord."""
    for name in ("crc32", *(f"manifest/{name}" for name in NUMBERS), "pixels"):
        kind = file[name].dtype, file[name].shape[1:]
        instead(name, shape=(10**12, *kind[1]), dtype=kind[0])(file)


def virtual(file):
    layout = h5py.VirtualLayout((11,), np.uint32)
    layout[:] = h5py.VirtualSource("other.h5", "crc32", (11,))
    del file["crc32"]
    file.create_virtual_dataset("crc32", layout)


def attributes(**values):
    return lambda file: file.attrs.update(values)


FORGED = {
    "claims": claims,
    "many entries": instead("crc32", shape=(10**12,), dtype=np.uint32),
    "compressed": instead("crc32", data=np.zeros(10**7, np.uint32), compression="gzip"),
    "storage elsewhere": instead("crc32", shape=(11,), dtype=np.uint32, external=[("/etc/passwd", 0, 44)]),
    "virtual": virtual,
    "a link to elsewhere": linked("crc32", h5py.ExternalLink("other.h5", "crc32")),
    "a linked folder": linked("manifest", h5py.ExternalLink("other.h5", "manifest")),
    "a soft link": linked("manifest/person", h5py.SoftLink("/manifest/camera")),
    "texts of any length": instead("manifest/source", data=["x"] * 11, dtype=h5py.string_dtype()),
    "fractions": instead("splits/train/rows", data=np.array([3.0, 2.0, 6.0])),
    "text for a number": attributes(clients="2"),
    "numbers for a number": attributes(clients=np.array([2, 2])),
    "many clients": attributes(clients=2**62),
    "no clients": attributes(clients=0),
    "nested": instead("about", data=np.bytes_(b"[" * 100_000)),
    "a list about it": instead("about", data=np.bytes_(b"[1]")),
    "numbers about it": instead("about", data=np.bytes_(b'{"a": 1}')),
}


@pytest.mark.parametrize("what", FORGED)
def test_what_a_file_says_of_itself_is_not_believed(pack, what):
    resealed(pack, FORGED[what])
    limit = resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + 200_000_000, limit[1]))
    try:
        refused(pack, r"has a seal, but not the contents of a pack \(.+\); expected what fedstil_mpi writes")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limit)


@pytest.mark.parametrize("change", [out_of_range, without_a_column, without_pixels, other_pixels, fewer_offsets])
def test_a_seal_on_something_else(pack, change):
    resealed(pack, lambda file: None)
    PackStream(pack).task(0, 0)
    resealed(pack, change)
    refused(
        pack, r"has a seal, but not the contents of a pack \(.+\); expected what fedstil_mpi writes: build it again"
    )


def test_a_changed_pixel_is_named_when_it_is_read(pack):
    start, length = seal.check(pack)
    row, image = 9, length // 11
    for place in range(image):
        with pack.open("r+b") as file:
            file.seek(start + row * image + place)
            file.write(bytes([PIXELS[row].flat[place] ^ 1 << place % 8]))
        stream = PackStream(pack)
        with pytest.raises(InputError, match=r"mix\.h5 is damaged: the pixels of 1 of 4 images .* is set/9\.jpg; copy"):
            stream.task(0, 0)
        with pytest.raises(InputError, match=r"mix\.h5 is damaged: 1 of 11 images .*: set/9\.jpg; copy"):
            verify(pack)
        with pack.open("r+b") as file:
            file.seek(start + row * image + place)
            file.write(bytes([PIXELS[row].flat[place]]))
    assert np.array_equal(stream.task(1, 0).train.pixels, PIXELS[[6]])
    assert verify(pack) == 11


def test_labels_need_no_pixels(pack):
    start, length = seal.check(pack)
    with pack.open("r+b") as file:
        file.seek(start)
        file.write(bytes(length))
    stream = PackStream(pack)
    assert stream.pids(1, 0).tolist() == [7]
    assert stream.labels(0, 0)["gallery"].tolist() == [5, 3, 5, 5]
    with pytest.raises(InputError, match=r"2 of 2 images do not have their CRC-32, the first is set/0\.jpg"):
        stream.warmup()
    with pytest.raises(InputError, match=r"11 of 11 images .*set/0\.jpg, set/1\.jpg.* and 1 others; copy"):
        verify(pack)


def test_what_happens_to_the_file_later(pack):
    stream = PackStream(pack)
    os.truncate(pack, 1000)
    with pytest.raises(InputError, match=r"mix\.h5 has changed since it was opened \(.*\); expected that a pack stays"):
        stream.task(0, 0)
    pack.unlink()
    with pytest.raises(InputError, match=r"mix\.h5 has changed since it was opened \(.*No such file"):
        stream.task(0, 0)


def test_another_size(pack):
    PackStream(pack, HEIGHT, WIDTH)
    message = r"mix\.h5 holds images of 4 x 2 pixels, not 64 x 32; set data.height to 4 and data.width to 2, or build"
    with pytest.raises(InputError, match=message):
        PackStream(pack, 64, 32)
    with pytest.raises(InputError, match="not 4 x 32"):
        PackStream(pack, width=32)


# -- all or nothing ----------------------------------------------------------------------------------------------------


def nothing_written(tmp_path, error, message, **given):
    with pytest.raises(error, match=message):
        write(tmp_path / "x.h5", **given)
    assert list(tmp_path.iterdir()) == []


def stopped(error):
    yield PIXELS[:5]
    raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError, MemoryError, OSError])
def test_a_stop_leaves_nothing(tmp_path, error):
    nothing_written(tmp_path, error, "stop", pixels=stopped(error("stop")))


def test_what_does_not_fit(tmp_path):
    nothing_written(tmp_path, ValueError, "10 images for a pack of 11", pixels=[PIXELS[:10]])
    nothing_written(tmp_path, ValueError, r"\(1, 4, 2, 3\) after 11 images", pixels=[PIXELS, PIXELS[:1]])
    nothing_written(tmp_path, ValueError, "a block float64", pixels=[PIXELS.astype(float)])
    nothing_written(tmp_path, ValueError, r"uint8 \(11, 2, 4, 3\)", pixels=[PIXELS.reshape(11, 2, 4, 3)])
    nothing_written(tmp_path, InputError, r"1 of 11 images .* is set/3.jpg", pixels=[PIXELS ^ (np.arange(11) == 3).astype(np.uint8)[:, None, None, None]])  # fmt: skip
    nobody = Manifest(*(getattr(MANIFEST, field)[:0] for field in MANIFEST.__dataclass_fields__))
    empty = Plan(1, 1, nobody, dict.fromkeys(SPLITS, Selection(numbers(), numbers(0, 0))))
    nothing_written(tmp_path, InputError, "would hold no images", plan=empty, pixels=[])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"camera": MANIFEST.camera[1:]}, "10 entries of camera for 11 images"),
        ({"person": MANIFEST.person.astype(np.int32)}, r"person is int32 \(11,\), expected int64 \(11,\)"),
        ({"role": MANIFEST.role + np.uint8(1)}, "role 4, but there are 4"),
    ],
)
def test_flaws_of_a_manifest(tmp_path, changes, message):
    nothing_written(tmp_path, ValueError, message, plan=replace(PLAN, manifest=replace(MANIFEST, **changes)))


@pytest.mark.parametrize(
    ("rows", "offsets", "message"),
    [
        ([3, 11], [0, 1, 2], "train: rows or offsets out of range"),
        ([3, -1], [0, 1, 2], "train: rows or offsets out of range"),
        ([3, 2], [0, 3, 2], "train: rows or offsets out of range"),
        ([3, 2], [0, 2], "train: 2 offsets for 2 x 1 tasks of 2 images"),
        ([3, 2], [0, 1, 1], "train: 3 offsets for 2 x 1 tasks of 2 images"),
    ],
)
def test_flaws_of_a_split(tmp_path, rows, offsets, message):
    splits = SPLITS | {"train": Selection(numbers(*rows), numbers(*offsets))}
    nothing_written(tmp_path, ValueError, message, plan=replace(PLAN, splits=splits))


def test_a_name_that_is_not_text(tmp_path):
    sources = (*MANIFEST.source[:-1], os.fsdecode(b"set/\xff.jpg"))
    plan = replace(PLAN, manifest=replace(MANIFEST, source=sources))
    nothing_written(tmp_path, InputError, "the name of 'set/.*' is not valid UTF-8; expected text: rename", plan=plan)


def test_where_it_may_go(pack):
    before = pack.read_bytes()
    with pytest.raises(InputError, match=r"mix\.h5 exists already; .*: choose another name"):
        write(pack)
    assert pack.read_bytes() == before
    with pytest.raises(InputError, match=r"x\.h5 cannot be written: .*nowhere is no folder; create it"):
        write(pack.parent / "nowhere" / "x.h5")
    link = pack.with_name("link.h5")
    link.symlink_to("elsewhere")
    with pytest.raises(InputError, match=r"link\.h5 exists already"):
        write(link)
    with pytest.raises(InputError, match=r"cannot be written \(.*File name too long"):
        write(pack.with_name("x" * 250))


def test_a_file_that_turns_up_meanwhile_stays(tmp_path):
    path = tmp_path / "x.h5"

    def blocks():
        yield PIXELS
        path.write_text("somebody else's")

    with pytest.raises(InputError, match=r"x\.h5 exists already"):
        write(path, pixels=blocks())
    assert path.read_text() == "somebody else's"
    assert list(tmp_path.iterdir()) == [path]


def test_too_little_room_is_found_beforehand(tmp_path, monkeypatch):
    monkeypatch.setattr(target.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    message = r"x\.h5 needs about 3,080 bytes, but there is not enough disk space \(1,000 bytes are free\): free some or choose"
    nothing_written(tmp_path, InputError, message, pixels=stopped(AssertionError("not even begun")))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
def test_a_disk_that_is_full_at_last(tmp_path, monkeypatch, number):
    def full(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(target.os, "fsync", full)
    nothing_written(
        tmp_path,
        InputError,
        rf"needs about 3,080 bytes, but there is not enough disk space .*{os.strerror(number)}.*free some",
    )


LIMITED = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from fedstil_mpi.util.errors import InputError
from support.made_packs import write
path = Path(sys.argv[2])
write(path)
size = path.stat().st_size
path.unlink()
for limit in [1, 512, 2000, size // 2, size - 1]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write(path)
    except InputError as error:
        print(error)
    assert not list(path.parent.iterdir())
resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
write(path)
"""


def test_wherever_the_disk_is_full(tmp_path):
    """In a process of its own, as the library that makes HDF5 files is known to crash then, even at the end."""
    command = [sys.executable, "-c", LIMITED, str(Path(__file__).parents[1]), str(tmp_path / "x.h5")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        done.stdout.count("needs about 3,080 bytes, but there is not enough disk space (File too large): free some")
        == 5
    )
    assert verify(tmp_path / "x.h5") == 11
