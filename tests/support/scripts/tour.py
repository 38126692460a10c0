"""Everything a World does when all goes well; rank 0 prints what came out as JSON."""

import json
import resource
import sys
import time

import numpy as np

from fedstil_mpi.comm.start import start
from fedstil_mpi.launch.placement import place_rank, table

WAIT = 2.0


def cpu_share_of_waiting(world) -> float:
    """CPU seconds per second on a rank that waits in a barrier for rank 0."""
    world.barrier()
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    if world.rank == 0:
        time.sleep(WAIT)
    world.barrier()
    after, wall = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - began
    return (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) / wall


def rows_of(rank: int, dtype: str) -> np.ndarray:
    """Rank r has 2r rows: 0, 2, 4, ..."""
    return np.full((2 * rank, 3), rank, dtype)


with start() as world:
    facts = {"size": world.size, "is_server": world.is_server}
    ranks = world.gather_json([world.rank, world.local_rank, world.node, world.is_server])
    value = {"text": "grün", "nested": [1, 2.5, None, True], "empty": {}}
    seen_clients = world.gather_json(world.broadcast_json(value if world.rank == 0 else "not rank 0's"))
    ragged = world.gather_json("x" * world.rank * 1000)
    rows = {dtype: world.gather_rows(rows_of(world.rank, dtype)) for dtype in ("float32", "int64", "bool", "float64")}
    nobody = world.gather_rows(np.zeros((0, 4), np.float32))
    widthless = world.gather_rows(np.zeros((2, 0), np.float32))
    flat = world.gather_rows(np.array([world.rank, -world.rank]))
    strided = world.gather_rows(np.arange(8.0).reshape(2, 4).T)
    everywhere = [world.allgather_rows(rows_of(world.rank, dtype)) for dtype in ("float32", "int64")]
    no_one = world.allgather_rows(np.zeros((0, 4), np.float32))
    empty = world.allgather_rows(np.zeros((2, 0), np.float32))
    turned = world.allgather_rows(np.arange(8.0).reshape(2, 4).T)
    everywhere = world.gather_json([[str(r.dtype), r.tolist()] for r in (*everywhere, no_one, empty, turned)])
    elsewhere = world.gather_json([world.rank == 0 or x is None for x in (ranks, seen_clients, nobody, flat)])
    spare = world.duplicate("spare")
    for _ in range(2):  # the second time there is nothing to free
        world.free(spare)
    facts["communicators"] = len(world.comms)
    with world.verdict():
        placement = place_rank(world, clients=3, device="cpu", threads=1)
    placements = world.gather_json(table([placement])[0])
    share = world.gather_json(cpu_share_of_waiting(world))
    if world.rank == 0:
        facts |= {
            "ranks": ranks,
            "received": seen_clients,
            "lengths": [len(text) for text in ragged],
            "rows": {dtype: [str(r.dtype), r.astype(float).tolist()] for dtype, r in rows.items()},
            "nobody": [str(nobody.dtype), nobody.shape],
            "widthless": widthless.shape,
            "flat": flat.tolist(),
            "strided": strided.tolist(),
            "elsewhere": elsewhere,
            "everywhere": everywhere,
            "placements": placements,
            "share": share,
            "torch": "torch" in sys.modules,
        }
        print(json.dumps(facts))
