"""What is known of a run before any image or weight is touched."""

from dataclasses import dataclass, replace

from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.evaluation.scopes import Scopes
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.methods.base import MethodModule


@dataclass(frozen=True)
class Plan:
    """What every rank derives from the config and the stream's labels."""

    experiment: Experiment
    method: MethodModule
    schedule: Schedule
    num_classes: int
    scopes: Scopes

    @property
    def learners_experiment(self) -> Experiment:
        """The experiment as clients train it: on all clients' images a client has the steps and the memory of all of them."""
        experiment, clients = self.experiment, self.schedule.clients
        if not experiment.data.pooled:
            return experiment
        train = replace(experiment.train, steps=experiment.train.steps * clients)
        memory = replace(experiment.memory, size=experiment.memory.size * clients)
        return replace(experiment, train=train, memory=memory)
