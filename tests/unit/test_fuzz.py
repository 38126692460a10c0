"""Files that were damaged or forged are refused in one line, or still mean something; nothing hangs or blows up."""

import os
import random
import resource
import signal
import time
from collections import Counter
from itertools import product

import pytest
import torch

from fedstil_mpi.checkpoints import files
from fedstil_mpi.checkpoints.store import MARKER, CheckpointStore
from fedstil_mpi.config.synthetic import SyntheticOptions
from fedstil_mpi.data.pack import PackStream, seal
from fedstil_mpi.data.pack.packing import pack_stream
from fedstil_mpi.data.streams.synthetic import SyntheticStream
from fedstil_mpi.util.errors import InputError
from support import made_packs
from support.mutations import mutated

TRIALS = 500


def refusal(call) -> str | None:
    """The one line in which it refuses something, if it does."""
    began, message = time.perf_counter(), None
    try:
        call()
    except InputError as refused:
        message = str(refused)
    assert time.perf_counter() - began < 10
    assert message is None or len(message.splitlines()) == 1
    return message


@pytest.fixture
def checkpoints(tmp_path):
    checkpoints = CheckpointStore(tmp_path, "settings")
    tensors = {"tail": {"weight": torch.arange(12.0).view(3, 4), "steps": torch.tensor(3)}, "draws": 2, "known": [1, 5]}
    for rank in range(2):
        checkpoints.write(rank, 3, [(f"client-{rank}", files.copy(tensors))])
    checkpoints.commit(2, 3)
    return checkpoints


def read(checkpoints: CheckpointStore) -> None:
    checkpoint = checkpoints.newest()
    assert checkpoint is not None
    for name in checkpoint.notes:
        checkpoint.read(name)


@pytest.mark.slow
def test_a_mutated_checkpoint_is_refused_by_name(checkpoints):
    draw = random.Random(2)
    assert refusal(lambda: read(checkpoints)) is None
    place = checkpoints.folder / "00003"
    for _ in range(TRIALS):
        path = place / draw.choice(["client-0.safetensors", "client-1.safetensors", MARKER])
        sound = path.read_bytes()
        path.write_bytes(mutated(sound, draw))
        error = refusal(lambda: read(checkpoints))
        assert error is not None
        assert str(path) in error
        path.write_bytes(sound)
    assert refusal(lambda: read(checkpoints)) is None


@pytest.mark.slow
def test_a_mutated_pack_is_refused_by_name(tmp_path):
    options = SyntheticOptions(
        clients=2, people_per_task=2, train_images=2, query_images=1, gallery_images=1, warmup_people=0
    )
    path = tmp_path / "stream.h5"
    pack_stream(SyntheticStream(options, 1, tasks=1, height=32, width=16), path, height=32, width=16, about={})

    def read_all() -> None:
        stream = PackStream(path)
        for client in range(stream.clients):
            stream.task(client, 0)

    assert refusal(read_all) is None
    draw, sound = random.Random(3), path.read_bytes()
    for _ in range(TRIALS):
        path.write_bytes(mutated(sound, draw))
        assert str(path) in (refusal(read_all) or "")


def in_a_child(call, seconds: int = 20, memory: int = 4_000_000_000) -> int:
    """The exit code of a process that calls it, within this time and memory: 0, or 2 for a refusal; below 0: a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(seconds)
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
            code = 2 if refusal(call) else 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("trials", [30, pytest.param(TRIALS, marks=pytest.mark.long)])
def test_a_mutated_pack_with_a_right_seal_is_refused_in_one_line_or_is_a_pack(tmp_path, trials):
    """As somebody would forge it: libhdf5 and what reads from it have to cope with whatever they are given."""
    path = tmp_path / "pack.h5"
    made_packs.write(path, about={"program": "a test"})
    pixels, sound, draw = seal.check(path), path.read_bytes(), random.Random(4)

    def read_all() -> None:
        stream = PackStream(path)
        for client, task in product(range(stream.clients), range(stream.tasks)):
            stream.task(client, task)

    assert in_a_child(read_all) == 0
    codes: Counter[int] = Counter()
    for number in range(trials):
        after = sound[pixels.end :]
        changed = mutated(after, draw) if number % 2 else scattered(after, draw)
        made_packs.write_sealed(path, sound[: pixels.end] + changed, pixels)
        codes[in_a_child(read_all)] += 1
    assert codes.keys() <= {0, 2}, codes
    assert codes[2] > trials / 10


def scattered(data: bytes, draw: random.Random) -> bytes:
    """The bytes with up to eight others in their places, so that all else stays where it is."""
    result = bytearray(data)
    for _ in range(draw.randint(1, 8)):
        result[draw.randrange(len(result))] = draw.choice([0, 1, 255, draw.randrange(256)])
    return bytes(result)


def test_a_missing_file_of_a_checkpoint_is_named(checkpoints):
    (checkpoints.folder / "00003" / "client-1.safetensors").unlink()
    assert "client-1.safetensors" in (refusal(lambda: read(checkpoints)) or "")


def test_a_checkpoint_of_other_settings_is_refused(checkpoints):
    other = CheckpointStore(checkpoints.folder.parent, "other settings")
    assert "settings" in (refusal(other.newest) or "")
