"""Several experiments in one job, each paused once: pause.py OUTPUT CONFIG '{"name": [overrides], ...}' '{"name": n, ...}'.

The last rank of the job is asked to stop at the n-th time that it looks; 0: nobody is. With a fifth argument, seconds, all
ranks are killed instead, so long after any of them has looked n times, and the name is added to OUTPUT/killed.
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
from fedstil_mpi.launch.signals import PAUSED
from fedstil_mpi.run import execute

output, config, experiments, moments, *delay = sys.argv[1:]


def kill(name, ranks):
    with Path(output, "killed").open("a") as file:
        file.write(f"{name}\n")
    for rank in ranks:
        os.kill(rank, signal.SIGKILL)


with start() as world:
    resources = None
    ranks = sorted(world.broadcast_json(world.gather_json(os.getpid())), key=os.getpid().__eq__)  # this one last
    for name, overrides in json.loads(experiments).items():
        moment, looks = json.loads(moments)[name], count(1)
        asks = world.rank == world.size - 1

        def asked(name=name, looks=looks, moment=moment, asks=asks):
            look = next(looks)
            if delay and look == moment:
                Timer(float(delay[0]), kill, [name, ranks]).start()
            return not delay and asks and look >= moment > 0

        source = loading.read(config, [f"output={output}", f"name={name}", "resume=auto", *overrides])
        try:
            resources = execute(world, source, resources, brief=True, asked=asked)
            code = 0
        except OrderlyEnd as end:
            resources, code = None, end.code
        assert code == (PAUSED if moment and not delay else 0), f"{name} ended with code {code}"
