"""Where everything runs: clients on ranks, ranks on GPUs or MIG slices, threads on cores.

Decided before torch is imported, because CUDA and OpenMP read their environment only once.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from fedstil_mpi.comm.world import World
from fedstil_mpi.launch.allocator import keep_freed_memory
from fedstil_mpi.launch.gpus import find_gpus
from fedstil_mpi.launch.trial import gpu_problem
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.machine import cores
from fedstil_mpi.util.terminal import say


def assign_clients(clients: int, ranks: int) -> list[tuple[int, ...]]:
    """The clients of every rank, at first: contiguous blocks in client order, as even as possible, over ranks 1..n-1.

    A single rank takes all of them. Ranks beyond the clients get none.
    """
    if ranks == 1:
        return [tuple(range(clients))]
    each, left_over = divmod(clients, ranks - 1)
    blocks: list[tuple[int, ...]] = [()]
    first = 0
    for host in range(ranks - 1):
        last = first + each + (host < left_over)
        blocks.append(tuple(range(first, last)))
        first = last
    return blocks


@dataclass(frozen=True)
class RankPlacement:
    """Where one rank runs, and the clients it has at first."""

    rank: int
    """Its rank in the communicator that the job was started with."""
    host: str
    local_rank: int
    clients: tuple[int, ...]
    device: str
    """"cpu" or "cuda"."""
    gpu: str | None
    """The GPU's entry in CUDA_VISIBLE_DEVICES and its name; None on the CPU."""
    threads: int


@dataclass(frozen=True)
class HostResources:
    """What one rank has to run on, before placement; it travels as JSON."""

    rank: int
    node: int
    host: str
    local_rank: int
    clients: list[int]
    cores: list[int]
    """The cores this process may run on."""
    gpus: list[list[str]]
    """[entry for CUDA_VISIBLE_DEVICES, name] of every GPU this process may use."""
    no_gpu: str
    """Why `gpus` is empty."""


def place_rank(
    world: World,
    clients: int,
    *,
    device: str = "auto",
    gpus_per_node: int | None = None,
    threads: int | None = None,
) -> RankPlacement:
    """Decide where this rank runs, and prepare its process: environment (GPU, OpenMP) and allocator.

    device: "auto" (a GPU where the node has one with which torch can compute), "cuda" or "cpu". An own list in
    CUDA_VISIBLE_DEVICES is kept to. gpus_per_node: use only so many, default all. threads: of this rank; default
    OMP_NUM_THREADS if that is set, else the cores shared out among the ranks of the node. Call before torch is imported.
    Collective: all ranks must call, inside `world.verdict()`, because InputError is raised where more GPUs are asked than
    there are, or one does not work.
    """
    gpus, no_gpu = ([], "device: cpu") if device == "cpu" else find_gpus(os.environ.get("CUDA_VISIBLE_DEVICES"))
    own = HostResources(
        rank=world.rank,
        node=world.node,
        host=world.host,
        local_rank=world.local_rank,
        clients=list(assign_clients(clients, world.size)[world.rank]),
        cores=cores(),
        gpus=[[gpu.id, gpu.name] for gpu in gpus],
        no_gpu=no_gpu,
    )
    ranks = [HostResources(**row) for row in world.broadcast_json(world.gather_json(asdict(own)))]
    gpu = choose_gpu(ranks, world.rank, device, gpus_per_node)
    placement = placement_of(own, gpu, choose_threads(ranks, world.rank, threads, os.environ))
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu[0] if gpu else ""
    os.environ["OMP_NUM_THREADS"] = str(placement.threads)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin take the cores that others of the node need
    keep_freed_memory()
    if gpu is None or (problem := gpu_problem()) is None:
        return placement
    if device == "cuda":
        raise InputError(
            f"torch cannot use the GPU {placement.gpu} of {world.host} ({problem}): set placement.device to cpu"
        )
    say(
        f"warning: rank {world.rank} computes on the CPU, as torch cannot use the GPU {placement.gpu} of {world.host}: {problem}"
    )
    return replace(placement, device="cpu", gpu=None)


def placement_of(own: HostResources, gpu: list[str] | None, threads: int) -> RankPlacement:
    """The placement of the rank with these resources; gpu: what `choose_gpu` returned for it."""
    return RankPlacement(
        rank=own.rank,
        host=own.host,
        local_rank=own.local_rank,
        clients=tuple(own.clients),
        device="cuda" if gpu else "cpu",
        gpu=f"{gpu[0]} ({gpu[1]})" if gpu else None,
        threads=threads,
    )


def choose_gpu(ranks: list[HostResources], rank: int, device: str, gpus_per_node: int | None) -> list[str] | None:
    """[entry, name] of this rank's GPU, None for the CPU. Ranks with clients that see the same GPUs share them round
    robin; the server takes the first; a rank with nothing to do takes none."""
    mine = ranks[rank]
    if device == "cpu" or (rank > 0 and not mine.clients):
        return None
    found = len(mine.gpus)
    if gpus_per_node is not None and gpus_per_node > found:
        why = f" ({mine.no_gpu})" if mine.no_gpu else ""
        raise InputError(
            f"gpus_per_node is {gpus_per_node}, but {mine.host} has {found}{why}: "
            "leave it out to use what is there, or ask the scheduler for more GPUs per node"
        )
    if not found:
        if device == "cuda":
            raise InputError(f"device is cuda, but {mine.host} has no GPU ({mine.no_gpu}): set it to auto or cpu")
        return None
    gpus = mine.gpus[:gpus_per_node]
    sharing = [r.rank for r in ranks if r.node == mine.node and r.clients and r.gpus == mine.gpus]
    return gpus[sharing.index(rank) % len(gpus)] if mine.clients else gpus[0]


def choose_threads(ranks: list[HostResources], rank: int, threads: int | None, environment: Mapping[str, str]) -> int:
    """The config's number, else the first of OMP_NUM_THREADS, else the cores this rank may use divided by the ranks
    that may use any of them: right for bound and for unbound ranks."""
    if threads is not None:
        return threads
    if setting := environment.get("OMP_NUM_THREADS"):
        first = setting.split(",")[0].strip()
        if not first.isdecimal() or int(first) == 0:
            raise InputError(f"OMP_NUM_THREADS is {setting!r}, expected a positive number: correct it or unset it")
        return int(first)
    mine = ranks[rank]
    sharing = [r for r in ranks if r.node == mine.node and not set(r.cores).isdisjoint(mine.cores)]
    return max(1, len(mine.cores) // len(sharing))


def table(placements: list[RankPlacement]) -> list[dict[str, Any]]:
    """One row a rank, of plain values that JSON leaves as they are."""
    return [{**asdict(placement), "clients": list(placement.clients)} for placement in placements]
