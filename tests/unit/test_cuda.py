"""GPU memory and MPI, without a GPU: tensors on torch's device "meta", which have no memory, stand for those on one."""

import ctypes
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from fedstil_mpi.comm.cuda import is_cuda_aware

from fedstil_mpi.comm.exchange import Exchange
from fedstil_mpi.comm.flat import Part
from fedstil_mpi.util.clock import Clock

OWN, COMMON = Part("own", 5), Part("common", 5, shared=True)


@pytest.mark.parametrize(("answer", "aware"), [(1, True), (0, False)])
def test_the_library_is_asked(answer, aware):
    assert is_cuda_aware(SimpleNamespace(MPIX_Query_cuda_support=lambda: answer)) is aware


def test_a_library_that_cannot_be_asked_is_not_aware():
    assert is_cuda_aware(ctypes.CDLL(None)) is False  # the C library


def test_the_library_that_is_asked_is_mpi4pys():
    pytest.importorskip("mpi4py")
    code = "from fedstil_mpi.comm.cuda import mpi_library; mpi_library().MPI_Init"  # AttributeError where it is not
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


class Comm:
    """A communicator that moves nothing and notes, in `log`, where the buffers are that it is given."""

    def __init__(self, log):
        self.log = log

    def Ibcast(self, buffer, root):  # noqa: N802
        self.log.append(f"Ibcast {place(buffer)}")

    def Iscatterv(self, sent, received, root):  # noqa: N802
        self.log.append(f"Iscatterv {place(sent)} {place(received)}")

    def Igatherv(self, sent, received, root):  # noqa: N802
        self.log.append(f"Igatherv {place(sent)} {place(received)}")


def place(specification):
    return specification and memory(specification[0])


def memory(tensor):
    return "gpu" if tensor.is_meta else "host"


@pytest.fixture
def log(monkeypatch):
    """What happens in order: collectives, waiting for the GPU, and buffers in pinned memory."""
    log = []
    datatype = SimpleNamespace(Create_contiguous=lambda size: SimpleNamespace(Commit=lambda: size))
    monkeypatch.setitem(sys.modules, "mpi4py", SimpleNamespace(MPI=SimpleNamespace(BYTE=datatype)))
    stream = SimpleNamespace(synchronize=lambda: log.append("synchronize"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    empty = torch.empty

    def noted(*shape, device="cpu", pin_memory=False, **options):
        log.extend(["pin"] * pin_memory)
        return empty(*shape, device="meta" if torch.device(device).type == "cuda" else device, **options)

    monkeypatch.setattr(torch, "empty", noted)
    return log


def talk(log, *, rank, ranks, device, cuda_aware):
    """One round of an Exchange of two clients on the last rank, as this rank lives it; returns where messages lie."""
    log.clear()
    clients = [()] * (ranks - 1) + [(0, 1)]
    server = rank == 0
    world = SimpleNamespace(
        duplicate=lambda name: Comm(log),
        rank=rank,
        size=ranks,
        is_server=server,
        wait=lambda request, what=None: None,
        barrier=lambda: None,
    )
    exchange = Exchange(world, clients, torch.device(device), Clock(), cuda_aware=cuda_aware)
    knowledge = {"own": torch.ones(2, 5), "common": torch.ones(5)} if server else {}
    messages = exchange.down(1, [OWN, COMMON], [0, 1], knowledge)
    exchange.up(1, [OWN], [0, 1], {client: {"own": torch.ones(5)} for client in clients[rank]})
    return {memory(row) for message in messages.values() for row in message.values()}


def test_staging_of_a_client_on_a_gpu_goes_through_pinned_memory(log):
    assert talk(log, rank=1, ranks=2, device="cuda", cuda_aware=False) == {"host"}
    assert log == ["pin", "Iscatterv None host", "pin", "Ibcast host", "pin", "synchronize", "Igatherv host None"]


def test_a_cuda_aware_library_gets_gpu_memory_of_clients(log):
    assert talk(log, rank=1, ranks=2, device="cuda", cuda_aware=True) == {"gpu"}
    assert log == ["Iscatterv None gpu", "Ibcast gpu", "synchronize", "Igatherv gpu None"]


@pytest.mark.parametrize("cuda_aware", [False, True])
def test_the_servers_side_is_in_host_memory(log, cuda_aware):
    talk(log, rank=0, ranks=2, device="cuda", cuda_aware=cuda_aware)
    collectives = [line for line in log if line.startswith("I")]
    own = "gpu" if cuda_aware else "host"  # the server's share of nothing
    assert collectives == [f"Iscatterv host {own}", "Ibcast host", f"Igatherv {own} host"]


@pytest.mark.parametrize("cuda_aware", [False, True])
def test_nothing_of_cuda_is_touched_on_the_cpu(log, cuda_aware):
    assert talk(log, rank=0, ranks=1, device="cpu", cuda_aware=cuda_aware) == {"host"}
    assert log == ["Iscatterv host host", "Ibcast host", "Igatherv host host"]
