"""A world of this process alone, for programs that are not started as ranks, such as a notebook."""

from collections.abc import Iterator
from contextlib import contextmanager

from fedstil_mpi.comm.start import load_mpi, prepare_environment
from fedstil_mpi.comm.world import World


class AloneWorld(World):
    """Where nobody waits, what fails is simply raised."""

    @contextmanager
    def verdict(self) -> Iterator[None]:
        yield


@contextmanager
def alone() -> Iterator[World]:
    """A world for the block, whatever launcher this process is from. Not collective. Raises InputError without MPI."""
    prepare_environment()
    own = load_mpi().COMM_SELF
    world = AloneWorld(own.Dup(), own)
    try:
        yield world
    finally:
        world.comm.Free()
