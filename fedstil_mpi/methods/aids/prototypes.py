"""Identity prototypes: an aid that any method can be given.

A client sends, once per task, the mean representation of each person it meets. The server relays it to the other
clients that know this person, who rehearse it under the person's id: so a client learns how its people look elsewhere
without ever seeing an image. The aid wraps the two sides of a method and adds its parts to their messages.
"""

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor

from fedstil_mpi.client.learner import Learner
from fedstil_mpi.client.rehearsal import Samples
from fedstil_mpi.comm.flat import Message, Part, Rows
from fedstil_mpi.methods.aids import AidedClient, AidedServer
from fedstil_mpi.methods.base import Server, Setup, Traffic
from fedstil_mpi.util.state_tree import State

PEOPLE = Part("people", 1, torch.int64, ragged=True)
"""Person ids: of a client's new task (up), of the prototypes that follow (down)."""


def prototypes_part(setup: Setup) -> Part:
    return Part("prototypes", setup.representation, ragged=True)


def pids_of_begun_tasks(learner: Learner) -> Tensor:
    """Person ids int64 [n, 1] of the tasks that a client has begun since it last sent something."""
    people = [torch.from_numpy(learner.tasks[task].train.people) for task in learner.untold.begun_tasks]
    return torch.cat([torch.empty(0, dtype=torch.int64), *people])[:, None]


def prototypes_of_begun_tasks(learner: Learner, representation: int) -> Tensor:
    """Their prototypes, float32 [n, D]; representation: D."""
    made = [learner.identity_prototypes(task) for task in learner.untold.begun_tasks]
    return torch.cat([torch.empty(0, representation), *made])


def rehearse(learner: Learner, pids: Tensor, prototypes: Tensor) -> None:
    """Add relayed prototypes ([n, D], of pids int64 [n]) to what a client rehearses."""
    if not len(pids):
        return
    device, shape = learner.device, learner.views.clean(max(learner.task, 0), "train").shape[1:]
    images = prototypes.to(device, copy=True).view(-1, *shape)
    learner.relayed.append(Samples(images, pids.to(device, copy=True), -torch.ones_like(pids, device=device)))


def add_parts(traffic: Traffic, setup: Setup) -> Traffic:
    """A method's traffic with the parts of this aid."""
    own = (PEOPLE, prototypes_part(setup))
    return Traffic(
        down=traffic.down + tuple(part for part in own if part not in traffic.down),
        up=traffic.up + tuple(part for part in own if part not in traffic.up),
    )


class PrototypeClient(AidedClient):
    """A method's client that also sends and rehearses identity prototypes."""

    def absorb(self, knowledge: Message) -> None:
        if "prototypes" in knowledge:
            rehearse(self.learner, knowledge[PEOPLE.kind][:, 0], knowledge["prototypes"])
        self.inner.absorb(knowledge)

    def update(self) -> Message:
        prototypes = prototypes_of_begun_tasks(self.learner, self.setup.representation)
        return {PEOPLE.kind: pids_of_begun_tasks(self.learner), "prototypes": prototypes} | self.inner.update()


class Relay:
    """Which client knows which people, and which of the others' prototypes of them it still has to get."""

    derived = ("of_person",)

    def __init__(self, clients: int):
        self.people: list[int] = []
        """Who each prototype shows, in the order of arrival."""
        self.prototypes: list[Tensor] = []
        """Each [D], rows of the reports they came in."""
        self.of_person: defaultdict[int, list[int]] = defaultdict(list)
        """Person -> places in `people`."""
        self.knowers: defaultdict[int, set[int]] = defaultdict(set)
        """Person -> clients that know it."""
        self.due: list[list[int]] = [[] for _ in range(clients)]
        """Client -> places in `people` of what it has not got yet."""

    def collect(self, client: int, pids: list[int], prototypes: Tensor) -> None:
        """Take in what a client reports: people of its new tasks, which may be none, and their prototypes [n, D]."""
        if not pids:
            return
        for place, person in enumerate(pids, len(self.people)):
            knowers = self.knowers[person]
            if client not in knowers:
                self.due[client] += self.of_person[person]
                knowers.add(client)
            for other in knowers:
                if other != client:
                    self.due[other].append(place)
            self.of_person[person].append(place)
        self.people += pids
        self.prototypes += prototypes.clone().unbind()

    def deliver(self, client: int) -> tuple[list[int], list[Tensor]]:
        """People and prototypes that are due to this client, in the order of arrival; they are due no more."""
        due, self.due[client] = sorted(self.due[client]), []
        return [self.people[place] for place in due], [self.prototypes[place] for place in due]

    def state(self) -> State:
        knowers = {str(person): sorted(clients) for person, clients in self.knowers.items()}
        prototypes = torch.stack(self.prototypes) if self.prototypes else None
        return {"people": self.people, "prototypes": prototypes, "knowers": knowers, "due": self.due}

    def restore(self, state: State) -> None:
        self.people, self.due = state["people"], state["due"]
        self.prototypes = [] if state["prototypes"] is None else list(state["prototypes"].unbind())
        self.knowers.update({int(person): set(clients) for person, clients in state["knowers"].items()})
        for place, person in enumerate(self.people):
            self.of_person[person].append(place)


class PrototypeServer(AidedServer):
    """A method's server that also relays identity prototypes."""

    def __init__(self, inner: Server):
        super().__init__(inner)
        self.relay = Relay(inner.setup.clients)

    def knowledge(self, online: list[int]) -> Rows:
        message = super().knowledge(online)
        deliveries = [self.relay.deliver(client) for client in online]
        nobody, nothing = torch.empty(0, 1, dtype=torch.int64), torch.empty(0, self.setup.representation)
        pids = [torch.tensor(pids)[:, None] if pids else nobody for pids, _ in deliveries]
        prototypes = [torch.stack(rows) if rows else nothing for _, rows in deliveries]
        return message | {PEOPLE.kind: pids, "prototypes": prototypes}

    def collect(self, online: list[int], updates: Rows) -> None:
        for client, pids, prototypes in zip(online, updates[PEOPLE.kind], updates["prototypes"], strict=True):
            self.relay.collect(client, pids[:, 0].tolist(), prototypes)
        super().collect(online, updates)

    def state(self) -> State:
        """The method's with one thing more, for where ranks share its work only one of them relays."""
        return self.inner.state() | {"relay": self.relay.state()}

    def restore(self, state: State, theta_of: Callable[[int], Tensor]) -> None:
        self.relay.restore(state["relay"])
        self.inner.restore(state, theta_of)
