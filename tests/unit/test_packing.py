"""A run from a pack is a run from its source: every array of every task is the same."""

from itertools import product

import numpy as np
import pytest

from fedstil_mpi.config.schema import Data, Experiment, check
from fedstil_mpi.config.synthetic import SyntheticOptions
from fedstil_mpi.data.pack import PackStream, verify
from fedstil_mpi.data.pack.manifest import ROLES
from fedstil_mpi.data.pack.packing import pack_stream
from fedstil_mpi.data.sources import open_stream
from fedstil_mpi.data.streams.base import SPLITS, Images, Stream, Task
from fedstil_mpi.util.errors import InputError

OPTIONS = SyntheticOptions(clients=3, people_per_task=3, train_images=2, warmup_people=4, warmup_images=2)
DATA = Data(height=32, width=16, tasks=2, synthetic=OPTIONS)
CELLS = list(product(range(3), range(2)))


@pytest.fixture(scope="module")
def source():
    return open_stream(DATA, 5)


@pytest.fixture(scope="module")
def path(source, tmp_path_factory):
    path = tmp_path_factory.mktemp("packing") / "synthetic.h5"
    pack_stream(source, path, height=32, width=16, about={"seed": "5"}, label="synthetic")
    return path


def same(one: Images, other: Images) -> bool:
    pairs = [(getattr(one, name), getattr(other, name)) for name in ("pixels", "pids", "cameras")]
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("changes", [{}, {"pooled": True}, {"validation": True}, {"clients": [2, 0]}])
def test_every_array_is_the_same(path, changes):
    settings = {"height": 32, "width": 16, "tasks": 2, **changes}
    source = open_stream(Data(synthetic=OPTIONS, **settings), 5)
    packed = open_stream(Data(kind="pack", path=str(path), **settings), 5)
    assert (packed.clients, packed.tasks) == (source.clients, source.tasks)
    for cell in product(range(source.clients), range(source.tasks)):
        one, other = source.task(*cell), packed.task(*cell)
        assert all(same(getattr(one, split), getattr(other, split)) for split in SPLITS)
        assert np.array_equal(packed.pids(*cell), source.pids(*cell))
        for split, pids in source.labels(*cell).items():
            assert np.array_equal(packed.labels(*cell)[split], pids)
    assert same(source.warmup(), packed.warmup())


def test_manifest(source, path):
    plan = PackStream(path).plan()
    manifest = plan.manifest
    images = [(source.warmup(), "warmup", -1, -1)]
    images += [(getattr(source.task(*cell), split), split, *cell) for cell in CELLS for split in SPLITS]
    expected = [
        (
            "synthetic/" + ("warmup" if role == "warmup" else f"task-{client}-{task}/{role}") + f"/{index}",
            role,
            client,
            task,
        )
        for part, role, client, task in images
        for index in range(len(part))
    ]
    roles = [ROLES[role] for role in manifest.role]
    assert list(zip(manifest.source, roles, manifest.client, manifest.task, strict=True)) == expected
    assert not manifest.file_sha256.any()
    assert verify(path) == len(manifest) == len(expected)


def test_the_same_stream_gives_the_same_bytes_and_tells_how_far_it_is(source, path, tmp_path):
    seen = []

    def watch(cells):
        for cell in cells:
            seen.append(cell)
            yield cell

    again = tmp_path / "again.h5"
    pack_stream(source, again, height=32, width=16, about={"seed": "5"}, label="synthetic", watch=watch)
    assert again.read_bytes() == path.read_bytes()
    assert seen == CELLS


class Sparse(Stream):
    """No queries, a gallery at one client alone, no images of the server's."""

    clients, tasks = 2, 1

    def task(self, client: int, task: int) -> Task:
        def images(count: int) -> Images:
            pids = np.arange(count, dtype=np.int64)
            return Images(np.full((count, 8, 8, 3), client + 7, np.uint8), pids, pids - 1)

        return Task(images(2), images(0), images(3 * client))


class Wrong(Sparse):
    """Promises more images than there are."""

    def labels(self, client: int, task: int) -> dict[str, np.ndarray]:
        return super().labels(client, task) | {"query": np.arange(client)}


def test_empty_splits(tmp_path):
    path, stream = tmp_path / "x.h5", Sparse()
    pack_stream(stream, path, height=8, width=8, about={})
    packed = PackStream(path)
    assert packed.warmup() is None
    for client in range(2):
        one, other = stream.task(client, 0), packed.task(client, 0)
        assert all(same(getattr(one, split), getattr(other, split)) for split in SPLITS)


def test_refused(path, tmp_path):
    with pytest.raises(ValueError, match="7 images for a pack of 8"):
        pack_stream(Wrong(), tmp_path / "x.h5", height=8, width=8, about={})
    with pytest.raises(ValueError, match=r"\(2, 8, 8, 3\)"):
        pack_stream(Sparse(), tmp_path / "x.h5", height=8, width=16, about={})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="exists already"):
        pack_stream(None, path, height=8, width=8, about={})  # before anything is asked of the stream


def test_of_a_config(path):
    with pytest.raises(InputError, match=r"data.kind is pack but data.path is not set; name .* the pack"):
        check(Experiment(data=Data(kind="pack")))
    check(Experiment(data=Data(kind="pack", path=str(path))))
    with pytest.raises(InputError, match=r"set data.height to 32 and data.width to 16"):
        open_stream(Data(kind="pack", path=str(path)), 5)
