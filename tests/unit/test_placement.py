"""Clients on ranks, ranks on GPUs, threads on cores: without MPI and without a GPU."""

import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pynvml
import pytest
import torch

from fedstil_mpi.federation.server_place import Places
from fedstil_mpi.launch import placement
from fedstil_mpi.launch.gpus import Gpu, find_gpus
from fedstil_mpi.launch.placement import HostResources, assign_clients, choose_gpu, choose_threads, place_rank, table
from fedstil_mpi.launch.trial import gpu_problem
from fedstil_mpi.planning import resident
from fedstil_mpi.results.writing import summary
from fedstil_mpi.util import machine
from fedstil_mpi.util.errors import InputError


@pytest.mark.parametrize("clients", [0, 1, 5, 23])
@pytest.mark.parametrize("ranks", [1, 2, 6, 40])
def test_every_client_is_placed_once_in_even_blocks(clients, ranks):
    blocks = assign_clients(clients, ranks)
    assert len(blocks) == ranks
    assert [client for block in blocks for client in block] == list(range(clients))  # once, contiguous, in order
    hosts = blocks[1:] if ranks > 1 else blocks
    sizes = [len(block) for block in hosts]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)  # the ranks without clients are the last
    assert ranks == 1 or blocks[0] == ()


def test_five_clients_on_four_ranks_by_hand():
    assert assign_clients(5, 4) == [(), (0, 1), (2, 3), (4,)]


class FakeNvml:
    """NVML with the given cards: None for one that another job has, a list of slice ids (None: a gap) in MIG mode."""

    NVMLError = pynvml.NVMLError
    NVMLError_NoPermission = pynvml.NVMLError_NoPermission
    NVMLError_NotSupported = pynvml.NVMLError_NotSupported
    NVMLError_FunctionNotFound = pynvml.NVMLError_FunctionNotFound
    NVMLError_NotFound = pynvml.NVMLError_NotFound
    NVML_DEVICE_MIG_ENABLE = pynvml.NVML_DEVICE_MIG_ENABLE

    def __init__(self, cards):
        self.cards = cards
        self.open = 0

    def nvmlInit(self):  # noqa: N802
        self.open += 1

    def nvmlShutdown(self):  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self):  # noqa: N802
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        if self.cards[index] is None:
            raise pynvml.NVMLError_NoPermission
        return self.cards[index]

    def nvmlDeviceGetUUID(self, handle):  # noqa: N802
        return handle["id"]

    def nvmlDeviceGetName(self, handle):  # noqa: N802
        return handle["name"]

    def nvmlDeviceGetMigMode(self, handle):  # noqa: N802
        if "mig" not in handle:
            raise pynvml.NVMLError_NotSupported
        return [int(handle["mig"] is not None)] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, handle):  # noqa: N802
        return len(handle["mig"])

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle, index):  # noqa: N802
        if handle["mig"][index] is None:
            raise pynvml.NVMLError_NotFound
        return {"id": handle["mig"][index], "name": "slice"}


PLAIN = FakeNvml([{"id": "GPU-aa11", "name": "A"}, {"id": "GPU-bb22", "name": "B"}])
MIXED = FakeNvml(
    [
        {"id": "GPU-aa11", "name": "A", "mig": None},  # could, but is not in MIG mode
        {"id": "GPU-cc33", "name": "C", "mig": ["MIG-x1", None, "MIG-x2"]},
        None,
    ]
)


def ids(visible, nvml):
    return [gpu.id for gpu in find_gpus(visible, nvml)[0]]


def test_all_gpus_are_listed_by_uuid():
    assert find_gpus(None, PLAIN) == ([Gpu("GPU-aa11", "A"), Gpu("GPU-bb22", "B")], "")
    assert PLAIN.open == 0


def test_mig_slices_stand_in_for_their_card():
    assert ids(None, MIXED) == ["GPU-aa11", "MIG-x1", "MIG-x2"]


def test_card_in_mig_mode_without_slices_gives_no_gpu():
    gpus, why = find_gpus(None, FakeNvml([{"id": "GPU-cc33", "name": "C", "mig": [None, None]}]))
    assert gpus == []
    assert "no MIG slice" in why


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("1", ["1"]),
        ("1,0", ["1", "0"]),
        (" 1 , 0", ["1", "0"]),
        ("GPU-bb22", ["GPU-bb22"]),
        ("GPU-bb", ["GPU-bb"]),  # CUDA takes the beginning of a UUID
        ("0,7,1", ["0"]),  # and reads up to the first entry that names no GPU
        ("-1", []),
        ("GPU-zz", []),
        ("MIG-x1", []),
        ("", []),
    ],
)
def test_the_users_list_is_kept_to(visible, expected):
    assert ids(visible, PLAIN) == expected


def test_the_users_list_of_slices():
    assert ids("MIG-x2,MIG-x1", MIXED) == ["MIG-x2", "MIG-x1"]
    assert find_gpus("1", PLAIN)[0][0].name == "B"


def test_an_empty_list_is_the_reason():
    assert find_gpus("", PLAIN)[1] == "CUDA_VISIBLE_DEVICES='' names none of its 2 GPUs"


def test_no_driver_means_no_gpu_and_says_why():
    class NoDriver(FakeNvml):
        def nvmlInit(self):  # noqa: N802
            raise pynvml.NVMLError_LibraryNotFound

    gpus, why = find_gpus(None, NoDriver([]))
    assert gpus == []
    assert "NVML Shared Library Not Found" in why


GPUS = [["GPU-aa11", "A"], ["GPU-bb22", "B"]]


def resources(clients, gpus=GPUS, nodes=None, cores=(0,), no_gpu=""):
    """One rank's for each of `clients`, its clients."""
    nodes = nodes or [0] * len(clients)
    return [
        HostResources(rank, node, f"host{node}", rank, list(mine), list(cores), gpus, no_gpu)
        for rank, (mine, node) in enumerate(zip(clients, nodes, strict=True))
    ]


def gpu_ids(ranks, device="auto", gpus_per_node=None):
    chosen = [choose_gpu(ranks, rank, device, gpus_per_node) for rank in range(len(ranks))]
    return [gpu and gpu[0] for gpu in chosen]


A, B = "GPU-aa11", "GPU-bb22"


def test_ranks_share_gpus_round_robin_and_the_server_takes_the_first():
    assert gpu_ids(resources(assign_clients(5, 6))) == [A, A, B, A, B, A]


def test_ranks_are_counted_on_each_node_from_0():
    assert gpu_ids(resources(assign_clients(5, 6), nodes=[0, 0, 0, 0, 4, 4])) == [A, A, B, A, A, B]


def test_a_single_rank_takes_the_first_gpu():
    assert gpu_ids(resources(assign_clients(5, 1))) == [A]


def test_ranks_without_clients_take_no_gpu():
    assert gpu_ids(resources(assign_clients(1, 4))) == [A, A, None, None]


def test_ranks_that_see_different_gpus_are_counted_apart():
    placements = [replace(o, gpus=[GPUS[o.rank % 2]]) for o in resources(assign_clients(4, 5))]
    assert gpu_ids(placements) == [A, B, A, B, A]
    more = [*GPUS, ["GPU-cc33", "C"], ["GPU-dd44", "D"]]
    pairs = [replace(o, gpus=more[:2] if o.rank % 2 else more[2:]) for o in resources(assign_clients(4, 5))]
    assert gpu_ids(pairs) == ["GPU-cc33", A, "GPU-cc33", B, "GPU-dd44"]


def test_fewer_gpus_than_there_are():
    assert gpu_ids(resources(assign_clients(3, 4)), gpus_per_node=1) == [A, A, A, A]


def test_cpu_is_kept_to_beside_gpus():
    assert gpu_ids(resources(assign_clients(3, 4)), "cpu") == [None] * 4


def test_auto_without_gpus_is_the_cpu():
    assert gpu_ids(resources(assign_clients(3, 4), gpus=[])) == [None] * 4


def test_cuda_without_gpus_is_refused_with_the_reason():
    with pytest.raises(InputError, match=r"device is cuda, but host0 has no GPU \(no driver\)"):
        choose_gpu(resources([[0]], gpus=[], no_gpu="no driver"), 0, "cuda", None)


@pytest.mark.parametrize("device", ["auto", "cuda"])
@pytest.mark.parametrize("gpus", [GPUS, []])
def test_more_gpus_than_there_are_is_refused(device, gpus):
    with pytest.raises(InputError, match=f"gpus_per_node is 4, but host0 has {len(gpus)}.*leave it out"):
        choose_gpu(resources([[0]], gpus=gpus), 0, device, 4)


def test_all_ranks_of_a_node_refuse_with_the_same_line():
    def message(rank):
        with pytest.raises(InputError) as refused:
            choose_gpu(resources(assign_clients(2, 3)), rank, "auto", 4)
        return str(refused.value)

    assert message(0) == message(1) == message(2)


def test_cores_are_divided_among_the_ranks_that_share_them():
    unbound = resources([[]] * 3, cores=range(8))
    assert [choose_threads(unbound, rank, None, {}) for rank in range(3)] == [2, 2, 2]
    bound = [replace(o, cores=[2 * o.rank, 2 * o.rank + 1]) for o in unbound]
    assert [choose_threads(bound, rank, None, {}) for rank in range(3)] == [2, 2, 2]
    crowded = resources([[]] * 6, cores=range(2))
    assert choose_threads(crowded, 5, None, {}) == 1
    two_nodes = resources([[]] * 3, cores=range(8), nodes=[0, 1, 1])
    assert [choose_threads(two_nodes, rank, None, {}) for rank in range(3)] == [8, 4, 4]


def test_threads_of_the_config_then_of_the_environment():
    one = resources([[0]], cores=range(8))
    assert choose_threads(one, 0, 3, {"OMP_NUM_THREADS": "5"}) == 3
    assert choose_threads(one, 0, None, {"OMP_NUM_THREADS": "5"}) == 5
    assert choose_threads(one, 0, None, {"OMP_NUM_THREADS": "6,2"}) == 6
    assert choose_threads(one, 0, None, {"OMP_NUM_THREADS": ""}) == 8
    with pytest.raises(InputError, match="OMP_NUM_THREADS is 'many'"):
        choose_threads(one, 0, None, {"OMP_NUM_THREADS": "many"})


class TwoRanks:
    """Rank 1 of two, on one host; rank 0 brings what rank 1 brings."""

    rank, size, node, host, local_rank = 1, 2, 0, "here", 1

    def gather_json(self, value):
        return [{**value, "rank": 0, "clients": []}, value]

    def broadcast_json(self, value):
        return value


@pytest.fixture
def env(monkeypatch):
    """An environment of its own."""
    env = {"CUDA_VISIBLE_DEVICES": "1,0"}
    monkeypatch.setattr(os, "environ", env)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(placement, "find_gpus", lambda visible: find_gpus(visible, PLAIN))
    monkeypatch.setattr(placement, "gpu_problem", lambda: None)
    return env


def test_the_placement_is_put_into_the_environment(env):
    placement = place_rank(TwoRanks(), 3)
    assert (env["CUDA_VISIBLE_DEVICES"], env["OMP_NUM_THREADS"]) == ("1", "4")
    assert (placement.rank, placement.host, placement.clients, placement.device, placement.gpu) == (
        1,
        "here",
        (0, 1, 2),
        "cuda",
        "1 (B)",
    )
    assert placement.threads == 4
    assert table([placement]) == [asdict(placement) | {"clients": [0, 1, 2]}]


def test_a_placement_on_the_cpu_hides_the_gpus(env):
    placement = place_rank(TwoRanks(), 3, device="cpu", threads=2)
    assert (env["CUDA_VISIBLE_DEVICES"], env["OMP_NUM_THREADS"]) == ("", "2")
    assert (placement.device, placement.gpu, placement.threads) == ("cpu", None, 2)


def test_a_gpu_that_torch_cannot_use_is_left_alone_unless_it_was_asked_for(env, monkeypatch, capsys):
    monkeypatch.setattr(placement, "gpu_problem", lambda: "Torch not compiled with CUDA enabled")
    found = place_rank(TwoRanks(), 3)
    assert (found.device, found.gpu) == ("cpu", None)
    (line,) = capsys.readouterr().err.splitlines()
    assert "rank 1 computes on the CPU" in line
    assert line.endswith("1 (B) of here: Torch not compiled with CUDA enabled")
    with pytest.raises(InputError, match=r"torch cannot use the GPU 1 \(B\) of here .*: set placement.device to cpu"):
        place_rank(TwoRanks(), 3, device="cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_the_trial_says_why_there_is_no_gpu_to_use():
    assert gpu_problem()


def test_where_the_system_does_not_tell_which_cores_may_be_used_all_are(env, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert machine.cores() == [0, 1, 2, 3, 4, 5]
    assert place_rank(TwoRanks(), 3).threads >= 1


def test_memory_is_measured_where_there_is_no_proc(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda path: (_ for _ in ()).throw(FileNotFoundError(path)))
    assert resident.peak() > 10_000_000
    assert "cores (" in machine.cpu()


def test_torch_and_mpi_are_not_imported():
    code = (
        "import sys, fedstil_mpi.launch.placement, fedstil_mpi.comm.world\n"
        "fedstil_mpi.launch.placement.find_gpus(None)\n"
        "assert not {'torch', 'mpi4py'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


FAKE_LIBRARY = r"""
#include <stdio.h>
#include <string.h>
static int devices[3] = {0, 1, 2};
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return "an error"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 3; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if (index == 1) return 4;  /* no permission */
    *device = &devices[index];
    return 0;
}
int nvmlDeviceGetUUID(void *device, char *text, unsigned size) {
    snprintf(text, size, "GPU-%d", *(int *)device);
    return 0;
}
int nvmlDeviceGetName(void *device, char *text, unsigned size) { strncpy(text, "Fake", size); return 0; }
"""


def test_pynvml_itself_with_a_library_of_ours(tmp_path):
    """Names, signatures and text types of the real pynvml; the library has no MIG functions, like an old driver."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build a stand-in for the NVML library")
    (tmp_path / "nvml.c").write_text(FAKE_LIBRARY)
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "nvml.c"], check=True, timeout=60)
    code = "from fedstil_mpi.launch.gpus import find_gpus; print([(gpu.id, gpu.name) for gpu in find_gpus(None)[0]])"
    env = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[('GPU-0', 'Fake'), ('GPU-2', 'Fake')]"


def test_many_clients_of_a_rank_are_one_role():
    row = {"rank": 0, "host": "a", "clients": list(range(1000)), "gpu": None, "device": "cpu", "threads": 1}
    table = summary.placement_table([row], Places(shared=False, in_files=False))
    assert list(table.columns[2].cells) == ["server, clients 0 to 999"]


def test_the_table_says_where_the_server_keeps_its_rows_and_where_clients_lie_that_are_away():
    rows = [{"rank": rank, "host": "a", "gpu": None, "device": "cpu", "threads": 1} for rank in range(3)]
    rows = [row | {"clients": [row["rank"] - 1] * (row["rank"] > 0)} for row in rows]

    def said(**where: int) -> list[list[str]]:
        columns = summary.placement_table(rows, Places(**where)).columns[-2:]
        return [list(column.cells) for column in columns]

    assert said(shared=False, in_files=False) == [["all", "", ""], ["", "in memory", "in memory"]]
    assert said(shared=True, in_files=True) == [["some columns"] * 3, ["", "in files", "in files"]]
    waves = said(shared=True, in_files=True, at_once=9)
    assert waves == [["some columns"] * 3, ["", *["in files, waves of 9"] * 2]]
