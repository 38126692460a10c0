"""Going on without the ranks that have died, by MPI's User Level Failure Mitigation (Bland et al. 2013).

A rank that finds another one dead revokes the communicators, so that all find out; the survivors agree on it, and shrink
to a world of their own.
"""

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from fedstil_mpi.comm.failures import OrderlyEnd
from fedstil_mpi.comm.guard import watchdog
from fedstil_mpi.comm.world import World
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.terminal import say

T = TypeVar("T")

SETTLE = 0.2
"""Seconds in which those who die together are counted together."""


def check_survivable(world: World) -> None:
    """Raise InputError where the death of a rank could not be survived."""
    if world.size > 1 and not world.ulfm:
        raise InputError(
            "fault_tolerance is true, but this job cannot outlive its ranks: start it by Open MPI 5's mpirun --with-ft "
            "ulfm (with mpi4py 4.1 or later), or set fault_tolerance=false"
        )


def survive(world: World, work: Callable[[], T]) -> T:
    """What `work` gives. When ranks die in it, the others leave it and begin it again. Collective: all ranks must call.

    `world` then consists of the others; rank 0 stays rank 0, and where it has died the job ends with exit code 1. A rank
    whose work fails dies alone.
    """
    world.outlived = True
    while True:
        result, end, whole = None, None, True
        try:
            result = work()
        except OrderlyEnd as asked:
            end = asked
        except Exception as error:
            if not world.is_loss(error):
                raise
            whole = False
            for comm in world.comms:
                comm.Revoke()
        if _agree(world, whole):
            break
        _shrink(world)
    world.outlived = False
    if end is not None:
        raise end
    return result  # type: ignore[return-value]


def _agree(world: World, whole: bool) -> bool:
    """Whether all ranks were there and whole; the same on all that are there."""
    from mpi4py import MPI

    all_whole = np.array([whole], np.int32)
    try:
        world.wait(world.comm.Iagree(all_whole), "the other ranks to agree")
    except MPI.Exception:  # on all alike, where one has not noticed a death yet
        return False
    return bool(all_whole[0])


def _shrink(world: World) -> None:
    from mpi4py import MPI

    time.sleep(SETTLE)
    with watchdog(60):
        comm = world.comm.Shrink()
    places = MPI.Group.Translate_ranks(comm.group, range(comm.size), world.comm.group)
    world.take(comm, [world.launched[place] for place in places])
    if world.launched[0] != 0:
        if world.is_server:
            say(f"rank 0 on {world.hosts[0]}, the server, was lost; go on with --resume")
        raise OrderlyEnd(1)
