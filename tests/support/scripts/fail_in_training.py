"""A run in which client 2 fails in round 2, in the midst of its training: fail_in_training.py HOW FOLDER ARGUMENTS...

HOW: exception, exit3, kill, stop, or diverge, which goes on with weights that are no numbers.

Every rank leaves a file named by its process id in FOLDER/ranks, and the one that fails the time in FOLDER/failed.
"""

import os
import signal
import sys
import time
from pathlib import Path

how, folder = sys.argv[1], Path(sys.argv[2])
(folder / "ranks").mkdir(exist_ok=True)
(folder / "ranks" / str(os.getpid())).touch()


def fail() -> None:
    (folder / "failed").write_text(str(time.time()))
    match how:
        case "exception":
            raise ZeroDivisionError("no people")
        case "exit3":
            sys.exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)


def spoil_training() -> None:
    """Let client 2 fail at its second batch of round 2."""
    import torch

    from fedstil_mpi.client.learner import Learner

    epoch = Learner._epoch

    def failing(self, round, number):
        for index, make in enumerate(epoch(self, round, number)):
            if (self.client, round, index) == (2, 2, 1):
                fail()
                self.tail.classifier.weight.data.fill_(torch.nan)
            yield make

    Learner._epoch = failing


if __name__ == "__main__":
    from fedstil_mpi import run
    from fedstil_mpi.federation import shared_resources

    begin = shared_resources.place_rank

    def place_rank(*arguments, **options):
        placement = begin(*arguments, **options)
        spoil_training()  # only now may torch be imported
        return placement

    shared_resources.place_rank = place_rank
    run.main(sys.argv[3:])
