"""What is put on a shelf comes back as it was, and takes no memory there."""

import os

import torch

from fedstil_mpi.util import shelf as module
from fedstil_mpi.util.shelf import ALIGNED, Shelf
from support.live import resident

TENSORS = {
    "matrix": torch.randn(3, 5),
    "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "row": torch.randn(4, 7)[2],
    "column": torch.randn(4, 7)[:, 2],
    "number": torch.tensor(3),
    "nothing": torch.empty(0, 4),
    "half": torch.randn(9).bfloat16(),
}


def filled() -> Shelf[str]:
    shelf: Shelf[str] = Shelf()
    for name, tensor in TENSORS.items():
        shelf[name] = tensor
    return shelf


def test_tensors_come_back_to_the_bit_and_with_their_strides():
    shelf = filled()
    assert list(shelf) == list(TENSORS)
    assert "matrix" in shelf
    assert "other" not in shelf
    for name, tensor in TENSORS.items():
        assert torch.equal(shelf[name], tensor)
        assert shelf[name].dtype == tensor.dtype
        assert shelf[name].stride() == tensor.stride() or name == "column"  # the only one with gaps
        assert shelf[name].data_ptr() % ALIGNED == 0


def test_a_key_can_be_set_again_also_to_something_larger():
    shelf = filled()
    for size in (9, 1000):
        shelf["matrix"] = torch.arange(float(size))
        assert torch.equal(shelf["matrix"], torch.arange(float(size)))
    assert torch.equal(shelf["row"], TENSORS["row"])


def test_what_is_empty_may_come_first():
    shelf: Shelf[str] = Shelf()
    shelf["none"] = torch.empty(0, 3)
    shelf["some"] = torch.ones(2)
    assert (shelf["none"].shape, len(shelf.part("none", slice(0, 3)))) == ((0, 3), 0)
    assert shelf["some"].sum() == 2
    del shelf["none"]
    assert list(shelf) == ["some"]


def test_a_place_that_is_given_up_serves_the_next_of_its_size():
    shelf: Shelf[str] = Shelf()
    for name in ("one", "two"):
        shelf[name] = torch.zeros(100)
    address = shelf["one"].data_ptr()
    del shelf["one"]
    shelf["larger"], shelf["as large"] = torch.ones(200), torch.ones(99)
    assert shelf["as large"].data_ptr() == address
    assert shelf["larger"].sum() == 200
    assert shelf["two"].sum() == 0


def test_more_than_one_mapping_holds(monkeypatch):
    monkeypatch.setattr(module, "EXTENT", 8192)
    shelf: Shelf[int] = Shelf()
    for number in range(20):
        shelf[number] = torch.full((1000 + 100 * number,), float(number))
    shelf.release()
    assert all(torch.equal(shelf[number], torch.full((1000 + 100 * number,), float(number))) for number in range(20))


def test_what_lies_on_a_shelf_is_not_in_memory():
    shelf: Shelf[int] = Shelf()
    row = torch.ones(1 << 20)
    before = resident()
    for number in range(50):  # 200 MB
        shelf[number] = row
    assert all(shelf[number].sum() == 1 << 20 for number in range(50))
    assert resident() - before < 2 * module.RESIDENT
    shelf.release()
    assert resident() - before < 20e6


def test_parts_are_read_without_the_pages_around_them():
    shelf: Shelf[int] = Shelf()
    for number in range(50):  # 200 MB
        shelf[number] = torch.arange(1 << 20) + float(number)
    before = resident()
    parts = torch.stack([shelf.part(number, slice(4096 * number, 4096 * (number + 1))) for number in range(50)])
    assert resident() - before < 10e6
    assert torch.equal(parts, torch.arange(50 * 4096.0).view(50, -1) + torch.arange(50.0)[:, None])
    assert shelf.part(3, slice((1 << 20) - 2, (1 << 20) + 5)).tolist() == [2.0**20 + 1, 2.0**20 + 2]
    assert len(shelf.part(3, slice(5, 5))) == 0


def test_what_is_set_again_soon_is_written_once(monkeypatch):
    written = []
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: written.append(len(data)) or write(file, data, at))
    row = torch.zeros(1000)
    shelf: Shelf[int] = Shelf(unwritten=4 * row.nbytes)
    for round in range(3):
        drawn = range(3 * round, 3 * round + 3)
        for value in (1.0, 2.0):
            for key in drawn:
                shelf[key] = row + value + key
    assert list(shelf) == list(range(9))
    assert sum(written) == 5 * row.nbytes  # the newest four are in memory
    assert all(torch.equal(shelf[key], row + 2.0 + key) for key in range(9))
    del shelf[0], shelf[8]
    assert list(shelf) == list(range(1, 8)) == sorted(shelf)
    assert (len(shelf), 0 in shelf, 8 in shelf) == (7, False, False)
    shelf[3] = row  # in memory again, and before what is in the file
    assert list(shelf) == list(range(1, 8))
