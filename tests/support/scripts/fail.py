"""Rank 1 fails, in the way named by the first argument, while the other ranks wait for it.

Every rank leaves a file named by its process id in the folder named by the second.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from fedstil_mpi.comm.start import start
from fedstil_mpi.util.errors import InputError


def fail(how: str) -> None:
    match how:
        case "exception":
            _ = 1 / 0
        case "exit3":
            sys.exit(3)
        case "exit0":
            sys.exit(0)
        case "input":
            raise InputError("camera 7 is missing")
        case "thread":
            threading.Thread(target=lambda: 1 / 0).start()
            time.sleep(600)
        case "late":
            time.sleep(600)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)


with start() as world:
    Path(sys.argv[2], str(os.getpid())).touch()
    world.barrier()
    world.at(round=4, task=1)
    world.at(client=2)
    if sys.argv[1] == "late":
        world.timeout = 1.5
    if world.rank == min(1, world.size - 1):
        fail(sys.argv[1])
    world.barrier()
