"""The server's side of FedWeIT's knowledge: which adaptive weights reach which client, and how many."""

from itertools import islice

import torch
from torch import Tensor

from fedstil_mpi.comm.flat import Rows
from fedstil_mpi.util import seeding
from fedstil_mpi.util.state_tree import State

ADAPTIVE = "adaptive"


class Bank:
    """As in the paper: once per task, a client gets the newest adaptive weights of others that have finished a task.

    It gets them in the first distribution after it has finished a task itself, or when it is new to the server: at most
    `limit`, those that were finished last; of those finished in the same round, the higher client numbers first.
    """

    def __init__(self, limit: int, scalars: int):
        self.limit = limit
        self.scalars = scalars
        self.newest: dict[int, Tensor] = {}
        """Client -> its newest finished part, float32 [P], in the order in which they were finished."""
        self.supplied: set[int] = set()
        """Clients that have got theirs for the task they are at."""

    def take(self, client: int, adaptive: Tensor) -> None:
        """adaptive: [1, P] from a client that has just finished a task, [0, P] from another one."""
        if not len(adaptive):
            self.supplied.add(client)
            return
        self.supplied.discard(client)
        self.newest.pop(client, None)
        self.newest[client] = adaptive[0].clone()

    def give(self, client: int) -> list[Tensor]:
        """What the client gets in this distribution, each [P]."""
        if client in self.supplied:
            return []
        self.supplied.add(client)
        return list(islice((self.newest[other] for other in reversed(self.newest) if other != client), self.limit))

    def knowledge(self, online: list[int]) -> Rows:
        given = [self.give(client) for client in online]
        return {ADAPTIVE: [torch.stack(rows) if rows else torch.empty(0, self.scalars) for rows in given]}

    def collect(self, online: list[int], adaptive: list[Tensor]) -> None:
        for client, items in zip(online, adaptive, strict=True):
            self.take(client, items)

    def state(self) -> State:
        newest = {str(client): adaptive for client, adaptive in self.newest.items()}
        return {"newest": newest, "supplied": sorted(self.supplied)}

    def restore(self, state: State) -> None:
        self.newest = {int(client): adaptive for client, adaptive in state["newest"].items()}
        self.supplied = set(state["supplied"])


class ReferenceCodeBank:
    """As in the reference code: every round all clients get the same dense bank, their own adaptive weights included.

    Its slots are drawn again each round from the clients' current adaptive weights; it is zero until there are as many.
    """

    def __init__(self, slots: int, scalars: int, seed: int):
        self.current: dict[int, Tensor] = {}
        self.slots = torch.zeros(slots, scalars)
        self.seed = seed
        self.rounds = 0

    def knowledge(self, online: list[int]) -> Rows:
        return {"knowledge": self.slots.flatten()}

    def collect(self, online: list[int], adaptive: Tensor) -> None:
        """adaptive: [online, P]."""
        self.rounds += 1
        self.current |= zip(online, adaptive.clone(), strict=True)
        self.fill()

    def fill(self) -> None:
        """Draw this round's slots."""
        if len(self.current) >= len(self.slots):
            draw = seeding.generator(self.seed, "knowledge", self.rounds)
            chosen = draw.choice(sorted(self.current), len(self.slots), replace=False).tolist()
            self.slots = torch.stack([self.current[client] for client in chosen])

    def state(self) -> State:
        return {"current": {str(client): adaptive for client, adaptive in self.current.items()}, "rounds": self.rounds}

    def restore(self, state: State) -> None:
        self.current = {int(client): adaptive for client, adaptive in state["current"].items()}
        self.rounds = state["rounds"]
        self.fill()
