"""Several experiments in one job, one after the other: play.py OUTPUT CONFIG '{"name": ["section.key=value", ...], ...}'.

At the end rank 0 prints their exit codes, {"name": code}. With a fourth argument, '{"name": n, ...}', each goes on where it
was interrupted, and the last rank of the job is asked to stop at the n-th time that it looks in that experiment. With a
fifth, seconds, all ranks are killed instead, so long after any of them has looked n times, and the name is added to
OUTPUT/killed.
"""

import json
import os
import signal
import sys
from itertools import count
from pathlib import Path
from threading import Timer

from fedstil_mpi.comm.failures import OrderlyEnd
from fedstil_mpi.comm.start import start
from fedstil_mpi.config import loading
from fedstil_mpi.run import execute

output, config, experiments, *more = sys.argv[1:]
usual = [f"output={output}", *(["resume=auto"] if more else [])]
moments, *delay = more or ["{}"]
codes = {}


def kill(name, ranks):
    with Path(output, "killed").open("a") as file:
        file.write(f"{name}\n")
    for rank in ranks:
        os.kill(rank, signal.SIGKILL)


def play(world, resources, name, overrides, moment):
    """Exit code, and what the next run may share."""
    ranks = sorted(world.broadcast_json(world.gather_json(os.getpid())), key=os.getpid().__eq__)  # this one last
    looks = count(1)

    def asked():
        look = next(looks)
        if delay and look == moment:
            Timer(float(delay[0]), kill, [name, ranks]).start()
        return not delay and world.rank == world.size - 1 and look >= moment > 0

    try:
        with world.verdict():
            source = loading.read(config, [f"name={name}", *usual, *overrides])
        return 0, execute(world, source, resources, asked=asked)
    except OrderlyEnd as end:
        return end.code, None


with start() as world:
    resources = None
    for name, overrides in json.loads(experiments).items():
        codes[name], resources = play(world, resources, name, overrides, json.loads(moments).get(name, 0))
    if world.is_server:
        print(json.dumps(codes))
