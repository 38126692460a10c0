"""Several experiments in one job, each paused once: pause.py OUTPUT CONFIG '{"name": [overrides], ...}' '{"name": n, ...}'.

The last rank of the job is asked to stop at the n-th time that it looks; 0: nobody is.
"""

import json
import sys
from itertools import count

from fedstil_mpi import configfile
from fedstil_mpi.comm.guard import OrderlyEnd
from fedstil_mpi.comm.world import start
from fedstil_mpi.interrupts import PAUSED
from fedstil_mpi.run import execute

output, config, experiments, moments = sys.argv[1:]
with start() as world:
    scene = None
    for name, overrides in json.loads(experiments).items():
        moment, looks = json.loads(moments)[name], count(1)
        asks = world.rank == world.size - 1

        def asked(looks=looks, moment=moment, asks=asks):
            return asks and next(looks) >= moment > 0

        source = configfile.read(config, [f"output={output}", f"name={name}", "resume=auto", *overrides])
        try:
            scene = execute(world, source, scene, brief=True, asked=asked)
            code = 0
        except OrderlyEnd as end:
            scene, code = None, end.code
        assert code == (PAUSED if moment else 0), f"{name} ended with code {code}"
