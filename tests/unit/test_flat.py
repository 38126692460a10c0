from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from fedstil_mpi.comm.flat import Layout, Part, to_device, to_host


def tensors() -> dict[str, Tensor]:
    return {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor(7.0), "c": torch.tensor([8.0, 9.0])}


def test_pack_is_the_tensors_one_after_the_other():
    layout = Layout.of(tensors())
    assert layout.scalars == 9
    assert layout.names == ("b", "a", "c")
    assert layout.pack(dict(reversed(tensors().items()))).tolist() == [0, 1, 2, 3, 4, 5, 7, 8, 9]


def test_unpack_undoes_pack_and_gives_views():
    layout = Layout.of(tensors())
    flat = layout.pack(tensors())
    pieces = layout.unpack(flat)
    assert all(torch.equal(pieces[name], value) for name, value in tensors().items())
    pieces["a"].fill_(-1)
    assert flat[6] == -1


@pytest.mark.parametrize("names", ["bac", "b"])
def test_a_pack_is_a_copy(names):
    live = {name: tensors()[name] for name in names}
    flat = Layout.of(live).pack(live)
    flat.zero_()
    assert all(torch.equal(live[name], tensors()[name]) for name in names)


def test_load_writes_into_live_parameters():
    layer = nn.Linear(3, 2)
    layout, before = Layout.of(dict(layer.named_parameters())), layer.weight
    layout.load(torch.arange(8.0), dict(layer.named_parameters()))
    assert layer.weight is before
    assert layer.weight.requires_grad
    assert layer.weight.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert layer.bias.tolist() == [6, 7]
    packed = layout.pack(dict(layer.named_parameters()))
    assert not packed.requires_grad
    assert packed.tolist() == list(range(8))


def test_strided_tensors_are_packed_in_their_own_order():
    weights = {"w": torch.arange(6.0).view(2, 3).T}
    assert Layout.of(weights).shapes == ((3, 2),)
    assert Layout.of(weights).pack(weights).tolist() == [0, 3, 1, 4, 2, 5]


def test_another_dtype_is_refused():
    counters = {"n": torch.tensor(3)}
    with pytest.raises(TypeError, match=r"n is torch\.int64.*torch\.float32"):
        Layout.of(counters)
    assert Layout.of(counters, torch.int64).pack(counters).dtype == torch.int64


@pytest.mark.parametrize("size", [8, 10])
def test_a_flat_tensor_of_another_size_is_refused(size):
    with pytest.raises(RuntimeError):
        Layout.of(tensors()).load(torch.zeros(size), tensors())


def test_nothing_to_pack():
    layout = Layout.of({})
    assert layout.scalars == 0
    assert layout.pack({}).shape == (0,)
    assert layout.unpack(torch.empty(0)) == {}


def test_bytes_of_a_part():
    assert Part("weights", 5).itemsize == 20
    assert Part("people", 3, torch.int64, ragged=True).itemsize == 24
    assert Part("half", 3, torch.float16).itemsize == 6


# -- to and from a GPU -------------------------------------------------------------------------------------------------


def test_in_host_memory_nothing_is_copied():
    flat = torch.randn(5)
    assert to_host(flat) is to_device(flat, torch.device("cpu")) is flat


def test_a_gpus_tensor_is_copied_once_into_pinned_memory_and_waited_for(monkeypatch):
    log = []
    host = SimpleNamespace(copy_=lambda source, non_blocking: log.append(("copy", source, non_blocking)))
    stream = SimpleNamespace(synchronize=lambda: log.append("synchronised"))
    on_gpu = SimpleNamespace(is_cuda=True, device="cuda:0")
    monkeypatch.setattr(torch, "empty_like", lambda like, device, pin_memory: log.append((device, pin_memory)) or host)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    assert to_host(on_gpu) is host
    assert log == [("cpu", True), ("copy", on_gpu, True), "synchronised"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_what_goes_to_a_gpu_comes_back():
    layout, gpu = Layout.of({"weight": torch.empty(1000, 1000)}), torch.device("cuda")
    sent, weight = torch.randn(1_000_000), torch.zeros(1000, 1000, device=gpu)
    layout.load(sent, {"weight": weight})
    weight *= 2  # on its way when the copy back begins
    assert torch.equal(to_host(layout.pack({"weight": weight})), 2 * sent)
