"""Identity prototypes: an aid that any method can be given.

A client sends, once per task, the mean representation of each person it meets. The server relays it to the other
clients that know this person, who rehearse it under the person's id: so a client learns how its people look elsewhere
without ever seeing an image. The aid wraps the two sides of a method and adds its parts to their messages.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedstil_mpi.client.learner import Learner
from fedstil_mpi.client.local_training import Penalty
from fedstil_mpi.comm.flat import Message, Part, Rows
from fedstil_mpi.methods.base import Client, Server, Setup, Traffic
from fedstil_mpi.models.network import Tail
from fedstil_mpi.util.state_tree import State

PEOPLE = Part("people", 1, torch.int64, ragged=True)
"""Person ids: of a client's new task (up), of the prototypes that follow (down)."""


def prototypes_part(setup: Setup) -> Part:
    return Part("prototypes", setup.representation, ragged=True)


def pids_of_new_task(learner: Learner) -> Tensor:
    """Person ids int64 [n, 1] in a client's first round on a task, none in its later rounds."""
    if not learner.task_is_new:
        return torch.empty(0, 1, dtype=torch.int64)
    return torch.from_numpy(np.unique(learner.tasks[learner.task].train.pids))[:, None]


def add_parts(traffic: Traffic, setup: Setup) -> Traffic:
    """A method's traffic with the parts of this aid."""
    own = (PEOPLE, prototypes_part(setup))
    return Traffic(
        down=traffic.down + tuple(part for part in own if part not in traffic.down),
        up=traffic.up + tuple(part for part in own if part not in traffic.up),
    )


class PrototypeClient(Client):
    """A method's client that also sends and rehearses identity prototypes."""

    def __init__(self, inner: Client):
        super().__init__(inner.learner, inner.setup, inner.options)
        self.inner = inner
        self.task_aware = inner.task_aware

    def absorb(self, knowledge: Message) -> None:
        if "prototypes" in knowledge:
            self.learner.receive_prototypes(knowledge[PEOPLE.kind][:, 0], knowledge["prototypes"])
        self.inner.absorb(knowledge)

    def begin(self) -> None:
        self.inner.begin()

    def context(self) -> Any:
        return self.inner.context()

    @property
    def penalty(self) -> Penalty:  # type: ignore[override]
        return self.inner.penalty

    def end(self) -> None:
        self.inner.end()

    def tail_for(self, task: int) -> Tail:
        return self.inner.tail_for(task)

    def update(self) -> Message:
        if self.learner.task_is_new:
            pids, prototypes = self.learner.identity_prototypes()
        else:
            pids, prototypes = torch.empty(0, dtype=torch.int64), torch.empty(0, self.setup.representation)
        return {PEOPLE.kind: pids[:, None], "prototypes": prototypes} | self.inner.update()

    def sent(self, update: Message) -> None:
        self.inner.sent(update)

    def state(self) -> State:
        return self.inner.state()

    def restore(self, state: State) -> None:
        self.inner.restore(state)


class Relay:
    """Which client knows which people, and which of the others' prototypes of them it still has to get."""

    derived = ("of_person", "knowers")

    def __init__(self, clients: int):
        self.known: list[set[int]] = [set() for _ in range(clients)]
        self.prototypes: list[tuple[int, int, Tensor]] = []
        """(sender, person, prototype [D]) in the order of arrival."""
        self.of_person: defaultdict[int, list[int]] = defaultdict(list)
        """Person -> places in `prototypes`."""
        self.knowers: defaultdict[int, list[int]] = defaultdict(list)
        """Person -> clients that know it."""
        self.due: list[list[int]] = [[] for _ in range(clients)]
        """Client -> places in `prototypes` of what it has not got yet."""

    def collect(self, client: int, pids: list[int], prototypes: Tensor) -> None:
        """Take in what a client reports: people of its task, and their prototypes [n, D]."""
        for person in pids:
            if person not in self.known[client]:
                self.known[client].add(person)
                self.knowers[person].append(client)
                self.due[client] += self.of_person[person]
        for person, row in zip(pids, prototypes, strict=True):
            for other in self.knowers[person]:
                if other != client:
                    self.due[other].append(len(self.prototypes))
            self.of_person[person].append(len(self.prototypes))
            self.prototypes.append((client, person, row.clone()))

    def deliver(self, client: int) -> tuple[list[int], list[Tensor]]:
        """People and prototypes that are due to this client, in the order of arrival; they are due no more."""
        due = sorted(self.due[client])
        self.due[client] = []
        return [self.prototypes[i][1] for i in due], [self.prototypes[i][2] for i in due]

    def state(self) -> State:
        prototypes = [[sender, person, row] for sender, person, row in self.prototypes]
        return {"prototypes": prototypes, "known": [sorted(known) for known in self.known], "due": self.due}

    def restore(self, state: State) -> None:
        self.prototypes = [(sender, person, row) for sender, person, row in state["prototypes"]]
        self.known = [set(known) for known in state["known"]]
        self.due = state["due"]
        for place, (_, person, _) in enumerate(self.prototypes):
            self.of_person[person].append(place)
        for client, known in enumerate(self.known):
            for person in known:
                self.knowers[person].append(client)


class PrototypeServer(Server):
    """A method's server that also relays identity prototypes."""

    def __init__(self, inner: Server):
        super().__init__(inner.setup, inner.options)
        self.inner = inner
        self.relay = Relay(inner.setup.clients)

    def knowledge(self, online: list[int]) -> Rows:
        message = self.inner.knowledge(online)
        self.relevance_KK = self.inner.relevance_KK
        deliveries = [self.relay.deliver(client) for client in online]
        empty = torch.empty(0, self.setup.representation)
        pids = [torch.tensor(pids, dtype=torch.int64)[:, None] for pids, _ in deliveries]
        prototypes = [torch.stack(rows) if rows else empty for _, rows in deliveries]
        return message | {PEOPLE.kind: pids, "prototypes": prototypes}

    def sent(self, online: list[int], knowledge: Rows) -> None:
        self.inner.sent(online, knowledge)

    def collect(self, online: list[int], updates: Rows) -> None:
        for row, client in enumerate(online):
            pids = updates[PEOPLE.kind][row][:, 0].tolist()
            self.relay.collect(client, pids, updates["prototypes"][row])
        self.inner.collect(online, updates)

    def state(self) -> State:
        return {"relay": self.relay.state(), "inner": self.inner.state()}

    def restore(self, state: State, theta_of: Callable[[int], Tensor]) -> None:
        self.relay.restore(state["relay"])
        self.inner.restore(state["inner"], theta_of)
