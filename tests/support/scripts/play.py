"""Several experiments in one job, one after the other: play.py OUTPUT CONFIG '{"name": ["section.key=value", ...], ...}'."""

import json
import sys

from fedstil_mpi.comm.start import start
from fedstil_mpi.config import loading
from fedstil_mpi.run import execute

output, config, experiments = sys.argv[1:]
with start() as world:
    resources = None
    for name, overrides in json.loads(experiments).items():
        resources = execute(world, loading.read(config, [f"output={output}", f"name={name}", *overrides]), resources)
