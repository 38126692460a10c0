"""Several experiments in one job, in each of which ranks die: die.py OUTPUT CONFIG '{"name": {"overrides": [...], ...}}'.

`deaths` of an experiment: [[rank as the job was started, round, moment (see `approach`)], ...]; round 0 is before the
first, or before the next when ranks were lost. `pause` names the round in which all are asked to stop.
Every death leaves its time in OUTPUT/times/NAME.died, every beginning of rounds its time in NAME.began.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from fedstil_mpi import run
from fedstil_mpi.comm.start import start
from fedstil_mpi.comm.world import World
from fedstil_mpi.config import loading
from fedstil_mpi.federation import shared_resources

output, config, experiments = sys.argv[1:]
times = Path(output, "times")


class Fate:
    """When this rank dies in the experiment that is under way."""

    def __init__(self, world, name, deaths=(), pause=None):
        self.world, self.name, self.pause = world, name, pause
        self.when = [(round, moment) for rank, round, moment in deaths if rank == world.launched[world.rank]]
        self.waits = None
        """How often the rank waits before it dies; None: it does not."""

    def approach(self, moment, waits):
        if (self.world.where.get("round", 0), moment) in self.when:
            self.waits = waits

    def is_asked_to_stop(self):
        return self.pause is not None and self.world.where.get("round") == self.pause

    def note(self, what):
        with (times / f"{self.name}.{what}").open("a") as file:
            file.write(f"{time.time()}\n")

    def strike(self):
        """Called when the rank waits for others, who may be with it in the midst of something."""
        if self.waits == 0:
            self.note("died")
            os.kill(os.getpid(), signal.SIGKILL)
        if self.waits:
            self.waits -= 1


def spoil(owner, method, before):
    """Call `before` at the beginning of each call of a method."""
    original = getattr(owner, method)

    def spoiled(*arguments, **options):
        before(*arguments)
        return original(*arguments, **options)

    setattr(owner, method, spoiled)


def batches(learner, round, epoch):
    """In the place of a client's batches; it dies between two."""
    for index, batch in enumerate(epochs(learner, round, epoch)):
        if index == 1:
            fate.approach("training", 0)
            fate.strike()
        yield batch


if __name__ == "__main__":
    times.mkdir(parents=True, exist_ok=True)
    place_rank = shared_resources.place_rank

    def placed(*arguments, **options):
        """Only now may torch be imported."""
        global epochs
        placement = place_rank(*arguments, **options)
        from fedstil_mpi.checkpoints import recovery
        from fedstil_mpi.checkpoints.manager import CheckpointManager
        from fedstil_mpi.checkpoints.store import CheckpointStore
        from fedstil_mpi.client.learner import Learner
        from fedstil_mpi.comm.mpi_exchange import MpiExchange

        epochs, Learner._epoch = Learner._epoch, batches
        spoil(World, "wait", lambda *_: fate.strike())
        spoil(recovery, "load_data_and_model", lambda *_: fate.approach("loading", 0))
        spoil(CheckpointManager, "restore", lambda *_: fate.approach("restoring", 0))
        spoil(recovery, "run_rounds", lambda *_: fate.world.is_server and fate.note("began"))
        spoil(MpiExchange, "down", lambda *_: fate.approach("down", 1))
        spoil(MpiExchange, "up", lambda *_: fate.approach("up", 1))
        spoil(World, "gather_rows", lambda *_: fate.approach("gather", 1))
        spoil(
            CheckpointStore, "write", lambda *_: fate.approach("checkpoint", 0) or fate.strike()
        )  # on a thread of its own
        spoil(CheckpointManager, "after_round", lambda *_: fate.approach("boundary", 0))
        return placement

    shared_resources.place_rank = placed
    with start() as world:
        place = None
        for name, trial in json.loads(experiments).items():
            fate = Fate(world, name, **{key: value for key, value in trial.items() if key != "overrides"})
            source = loading.read(config, [f"output={output}", f"name={name}", *trial["overrides"]])
            place = run.execute(world, source, place, detail="brief", asked=fate.is_asked_to_stop)
