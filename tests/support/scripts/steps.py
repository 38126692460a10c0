"""A run or what is left of it, on every rank: steps.py OUTPUT CONFIG MOMENT [section.key=value ...].

Each rank is asked to stop at the so many-th time that it looks (0: never). At the end rank 0 prints the exit code and how many steps of
local training all ranks have done.
"""

import json
import sys
from itertools import count

from fedstil_mpi.client.adam import Adam
from fedstil_mpi.comm.failures import OrderlyEnd
from fedstil_mpi.comm.start import start
from fedstil_mpi.config import loading
from fedstil_mpi.run import execute

output, config, moment, *overrides = sys.argv[1:]
done, looks, step = [], count(1), Adam.step


def counted(self):
    done.append(1)
    return step(self)


Adam.step = counted
with start() as world:
    code = 0
    try:
        source = loading.read(config, [f"output={output}", "resume=auto", *overrides])
        execute(world, source, detail="brief", asked=lambda: next(looks) >= int(moment) > 0)
    except OrderlyEnd as end:
        code = end.code
    steps = world.gather_json(len(done))
    if world.is_server:
        print(json.dumps([code, sum(steps)]))
