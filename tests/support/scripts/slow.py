"""Learning alone, as a plug-in, whose first client sleeps for PAUSE seconds in each round; without PAUSE it does not."""

import os
import time

from fedstil_mpi.methods import base
from fedstil_mpi.methods.single import PRESETS, Options, Server

__all__ = ["PRESETS", "Client", "Options", "Server"]


class Client(base.Client):
    def begin(self) -> None:
        if self.learner.client == 0 and not self.learner.counts_only:  # a plan takes no time
            time.sleep(float(os.environ.get("PAUSE", 0)))
