"""Some clients of a stream, as if there were no others."""

from collections.abc import Sequence

import numpy as np

from fedstil_mpi.data.streams.base import Stream, Task
from fedstil_mpi.data.streams.view import View
from fedstil_mpi.util.errors import InputError


class SubsetStream(View):
    """The given clients of `source`, renumbered from 0 in the order given; galleries stay as they were."""

    def __init__(self, source: Stream, clients: Sequence[int]):
        """Raises InputError where the source has no such client, or a client is given twice."""
        if not clients or len(set(clients)) < len(clients) or not set(clients) <= set(range(source.clients)):
            raise InputError(
                f"data.clients = {list(clients)}; expected different numbers from 0 to {source.clients - 1}, or null for all"
            )
        super().__init__(source)
        self.members = tuple(clients)
        self.clients = len(clients)

    def task(self, client: int, task: int) -> Task:
        return self.source.task(self.members[client], task)

    def labels(self, client: int, task: int) -> dict[str, np.ndarray]:
        return self.source.labels(self.members[client], task)

    def cameras(self, client: int, task: int) -> dict[str, np.ndarray] | None:
        return self.source.cameras(self.members[client], task)
