"""What is known of a run before any image or weight is touched."""

from dataclasses import dataclass

from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.methods.base import MethodModule


@dataclass(frozen=True)
class Plan:
    """What every rank derives from the config and the stream's labels."""

    experiment: Experiment
    method: MethodModule
    schedule: Schedule
    num_classes: int
