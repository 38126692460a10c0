"""Messages up and down beside the bare collective, on the ranks of one job: rank 0 prints the seconds of each, as JSON.

mpirun -n 3 .venv/bin/python bench/exchange_ranks.py CLIENTS SCALARS REPEATS
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from fedstil_mpi.comm.start import start
from fedstil_mpi.comm.world import World


def main() -> None:
    with start() as world:
        seconds = measure(world, *map(int, sys.argv[1:]))
        if world.is_server:
            print(json.dumps(seconds))


def measure(world: World, clients: int, scalars: int, repeats: int) -> dict[str, list[float]]:
    """Work -> wall seconds from a barrier until the last rank has it, in turns. Collective: all ranks must call."""
    import torch
    from mpi4py import MPI

    from fedstil_mpi.comm.flat import Part
    from fedstil_mpi.comm.mpi_exchange import MpiExchange
    from fedstil_mpi.launch.placement import assign_clients
    from fedstil_mpi.util.clock import Clock

    clients_of = assign_clients(clients, world.size)
    exchange, part, online = MpiExchange(world, clients_of, Clock()), Part("weights", scalars), list(range(clients))
    updates = {client: {"weights": torch.full((scalars,), float(client))} for client in clients_of[world.rank]}
    mine_KP, sent_KP, got_KP = (torch.ones(n, scalars) for n in (len(updates), *[clients * world.is_server] * 2))
    counts, kind = [len(of_rank) for of_rank in clients_of], MPI.FLOAT.Create_contiguous(scalars).Commit()
    rows = [counts, [sum(counts[:rank]) for rank in range(world.size)], kind]

    def of_server(all_KP: torch.Tensor) -> list[Any] | None:
        return [all_KP, *rows] if world.is_server else None

    mine = [mine_KP, len(mine_KP), kind]
    works: dict[str, Callable[[], object]] = {
        "down": lambda: exchange.down(1, [part], online, {"weights": sent_KP}),
        "bare down": lambda: world.comm.Scatterv(of_server(sent_KP), mine),
        "up": lambda: exchange.up(1, [part], online, updates),
        "bare up": lambda: world.comm.Gatherv(mine, of_server(got_KP)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(1 + repeats):
        for name, work in works.items():
            world.comm.Barrier()
            began = time.perf_counter()
            work()
            seconds[name].append(world.comm.allreduce(time.perf_counter() - began, MPI.MAX))
    kind.Free()
    exchange.close()
    return {name: of_work[1:] for name, of_work in seconds.items()}  # the first touches buffers, too


if __name__ == "__main__":
    main()
