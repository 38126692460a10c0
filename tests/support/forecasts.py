"""What is predicted of runs of tiny.yaml."""

from functools import cache

from fedstil_mpi import methods, plan
from fedstil_mpi.config import loading
from fedstil_mpi.data.sources import open_stream
from fedstil_mpi.federation.plan import make_plan
from fedstil_mpi.launch.placement import table
from fedstil_mpi.planning import forecast
from support import TINY

CLASSES = ["model.num_classes=32"]


@cache
def make(*overrides, ranks=4):
    """The forecast of tiny.yaml: MobileNetV2 on images of 32 x 16, 3 clients, 2 tasks of one round."""
    source = loading.read(TINY, [*CLASSES, *overrides])
    method = methods.load(loading.resolve(source).method.name)
    experiment = loading.resolve(source, method.Options, method.PRESETS)
    stream = open_stream(experiment.data, experiment.seed)
    placements = table(plan.placement(stream.clients, ranks, experiment.placement))
    return forecast.make(make_plan(experiment, method, stream), stream, placements)
