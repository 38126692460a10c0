"""Among 4 ranks, 1 and 2 find the same mistake, 3 finds another, and 0, which has to say so, finds none."""

from fedstil_mpi.comm.start import start
from fedstil_mpi.util.errors import InputError

with start() as world:
    with world.verdict():
        if world.rank in (1, 2):
            raise InputError("colour is 'mauve', expected 'red': change it")
        if world.rank == 3:
            raise InputError("no space on node")
    print("went on", flush=True)
