"""Wall and CPU seconds of a rank, from the moment at which a run began, over its interruptions."""

import time
from contextlib import contextmanager

import pytest
import torch

from fedstil_mpi.launch.tracing import ranges
from fedstil_mpi.util.clock import CPU, Clock, Moment
from fedstil_mpi.util.errors import InputError


@pytest.fixture
def now(monkeypatch):
    """What the clocks say: wall and CPU seconds."""
    found = {"wall": 100.0, "cpu": 10.0}
    monkeypatch.setattr(time, "perf_counter", lambda: found["wall"])
    monkeypatch.setattr(time, "process_time", lambda: found["cpu"])
    return found


def advance(now, wall, cpu):
    now["wall"] += wall
    now["cpu"] += cpu


def test_seconds_of_a_run_and_of_one_that_goes_on(now):
    began = Moment.now()
    advance(now, 5, 4)
    clock = Clock()  # made after part of the set-up
    advance(now, 1, 1)
    clock.end_set_up(began)
    with clock("train"):
        advance(now, 10, 20)  # on two cores
    advance(now, 3, 0)  # of no activity
    assert clock.spent() == {"set-up": 6, "train": 10, CPU: 25}

    kept, began = clock.spent(), Moment.now()
    again = Clock()
    again.seconds.update(kept)
    advance(now, 2, 1)
    again.end_set_up(began)
    assert again.spent() == {"set-up": 8, "train": 10, CPU: 26}
    assert again.spent() == again.spent()


def test_activities_are_marked_while_they_last():
    heard = []

    @contextmanager
    def mark(name):
        heard.append(name)
        yield
        heard.append(f"end of {name}")

    clock = Clock(mark)
    with clock("train"):
        heard.append("works")
    assert heard == ["train", "works", "end of train"]


def test_ranges_take_cuda(monkeypatch):
    with ranges(False)("train"):
        pass
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(InputError, match=r"^placement.nvtx names ranges .* without CUDA; set it to false"):
        ranges(True)
    monkeypatch.setattr(torch.version, "cuda", "12")
    assert ranges(True) is torch.cuda.nvtx.range
