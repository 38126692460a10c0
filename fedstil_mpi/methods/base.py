"""The two sides of a method, and the side that learns alone: what goes up, what comes down, the extra loss.

A method is a module of this package, or of the user's own, with
    Options   a dataclass: the method's own keys in the config
    PRESETS   {name: {"section.key": value}}: what the name in `method.preset` sets, below what the user sets
    Client    one object per client, on the client's rank
    Server    one object, on rank 0; or one on every rank, each for some of the P columns (`methods.columns`)
Neither side sees MPI: messages are dicts from the kind of a Part to tensors, and `traffic` says once which parts there
are.
"""

from collections.abc import Callable, Mapping, MutableMapping, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fedstil_mpi.client.batches import Batch
from fedstil_mpi.client.learner import Learner
from fedstil_mpi.comm.flat import Layout, Message, Part, Rows
from fedstil_mpi.models.network import Tail
from fedstil_mpi.util.file_rows import FileRows
from fedstil_mpi.util.shelf import RESIDENT, Compartment, Shelf
from fedstil_mpi.util.state_tree import State

SAMPLES = Part("samples", 1, torch.int64)
"""How many new images a client trained on in the round."""


@dataclass(frozen=True)
class Setup:
    """What both sides know from the start; equal on all ranks but for `start`."""

    clients: int
    layout: Layout
    """The travelling parameters as one flat vector of P scalars."""
    representation: int
    """D, scalars of one representation."""
    start: Tensor
    """The travelling parameters every client begins with, float32 [P] on the CPU; to be read on rank 0."""
    seed: int = 0
    """The experiment's, for what a server draws."""
    in_files: bool = False
    """Whether what is kept of clients that are away lies in files."""
    at_once: int | None = None
    """Of how many clients in a round rows of P weights may be in memory together; None: of all."""

    def rows(self) -> MutableMapping[int, Tensor]:
        """For what is kept of each client, float32 [P] on the CPU, which does not change once it is in there."""
        return Shelf(unwritten=RESIDENT) if self.in_files else {}  # sent, and collected again in the same round

    def file_rows(self, clients: int) -> FileRows | None:
        """For a row of P weights of each of so many, [clients, P], where they are to lie in a file."""
        return FileRows(clients, len(self.start)) if self.at_once and clients > self.at_once else None

    def cut(self, columns: slice) -> "Setup":
        """As if only these of the P scalars travelled."""
        start = self.start[columns]
        return replace(self, layout=Layout.of({"columns": start}), start=start)


@dataclass(frozen=True)
class Traffic:
    """The parts of a later round: `down` once a client has sent something, `up` whenever one sends."""

    down: tuple[Part, ...] = ()
    up: tuple[Part, ...] = ()


class Client:
    """A client's side of a method. This one learns alone: it takes nothing and sends nothing.

    In a round: `absorb`, `begin`, `context`, `penalty` for every batch, `end`, `update`, `sent`; the first and the last two
    only where the client exchanges.
    """

    task_aware = False
    """Whether a task is searched with a model of its own, for which one has to know which task a query is from."""
    derived: tuple[str, ...] = ("setup", "options")
    """Attributes of this class that are no state: given to the constructor, or made again from the rest where missing."""
    transient: tuple[str, ...] = ()
    """Attributes of this class that every round sets before anything reads them; a state need not hold them."""
    beside: Tail | None = None
    """Another model of the client, trained in every round before the learner's own, by the plain loss; None: there is none."""

    def __init__(self, learner: Learner, setup: Setup, options: Any):
        self.learner = learner
        self.setup = setup
        self.options = options

    @classmethod
    def create(cls, learner: Learner, setup: Setup, options: Any) -> "Client":
        """The client's side for these options; a method with several kinds of client overrides it."""
        return cls(learner, setup, options)

    @staticmethod
    def travelling(tail: Tail, options: Any) -> dict[str, nn.Parameter]:
        """The parameters that travel between clients and server, by name."""
        return {}

    @staticmethod
    def traffic(setup: Setup, options: Any) -> Traffic:
        """What is sent; all ranks compute it alike."""
        return Traffic()

    def absorb(self, knowledge: Message) -> None:
        """Take in what the server sent, before a round; empty where it knew nothing but the start model.

        With `rounds.exchange_every` several rounds may follow until `update`.
        """

    def begin(self) -> None:
        """Before local training; the learner knows its task by now."""

    def context(self) -> Any:
        """What `penalty` needs beside the parameters, once the round has begun; None where nothing is added to the loss."""
        return None

    @staticmethod
    def penalty(parameters: Mapping[str, Tensor], context: Any, batch: Batch, scores: Tensor) -> Tensor | None:
        """The method's extra loss for a batch and its scores, float32 [n, C]: a scalar, None for none.

        parameters: those of the tail that are trained, by their names in it while it is trained. Nothing else but the
        arguments is read, so that one call can serve a client or, stacked, many.
        """
        return None

    def end(self) -> None:
        """After local training, with the exemplars of the task chosen again."""

    def update(self) -> Message:
        """What goes up after local training: of all rounds since the last update, see `learner.untold`."""
        return {}

    def sent(self, update: Message) -> None:
        """What the server got of `update`: equal to it but where a codec loses something."""

    def tail_for(self, task: int) -> Tail:
        """The model that a task is searched with. To ask for it changes nothing that `state` says."""
        return self.learner.tail

    def serving(self) -> AbstractContextManager[None]:
        """While it lasts, the tail is the model that this client is searched with after an exchange, which can take the memory of one.

        Afterwards all that `state` says is as before: a search is no reason to write a client's checkpoint again.
        """
        return nullcontext()

    def put_away(self, shelf: Compartment) -> None:
        """Bring what is as large as the model to the shelf, at the end of a round, for as long as the client sits rounds out.

        It can be searched with as before.
        """
        self.learner.tail_memory.put_away(shelf)
        self.learner.untold.put_away(shelf)

    def state(self) -> State:
        """What lives beside the learner from one round to the next, at the end of a round."""
        return {}

    def restore(self, state: State) -> None:
        """Take up such a state in a client just created.

        Before its learner takes up its own: a tail that is made of parts is given its parts here.
        """


def restore(side: Client, state: State) -> None:
    """Let a client just created take up its method's state and its learner's.

    The tail is its own from here on: a method that puts other parts into it must not change the start model's.
    """
    side.learner.own_tail()
    side.restore(state["method"])
    side.learner.restore(state["learner"])


class Server:
    """The server's side of a method. This one sends nothing."""

    derived: tuple[str, ...] = ("setup", "options")
    transient: tuple[str, ...] = ("relevance_OK", "known")
    """As of a client."""
    known: Sequence[Set[int]] | None = None
    """The people each client knows, where only their rows of the classifier travel; None: all rows do."""
    relevance_OK: Tensor | None = None  # noqa: N815
    """How the last `knowledge` was mixed for each who gets it, [online, K]; None where a method mixes nothing."""

    in_parts: bool = False
    """Whether clients can be told one after the other: what one gets depends neither on how many get something with it nor on
    how often the server is asked. Where very many are online, a round goes in waves then (`federation.waves`), and weights may
    come as `FileRows`: use row by row, or by `comm.columns.mix`."""
    columns: tuple[str, ...] = ()
    """What of `state`, by key, has the P travelling scalars as its last axis."""

    def __init__(self, setup: Setup, options: Any):
        self.setup = setup
        self.options = options

    @staticmethod
    def by_columns(options: Any) -> bool:
        """Whether each of the P scalars is treated by itself, so that ranks can share them: of all that is sent only parts with
        `columns` are P long, and a sum over clients comes out alike for any selection of scalars (`comm.columns.mix`)."""
        return False

    def knowledge(self, online: list[int]) -> Rows:
        """What the online clients get, by part: [scalars], [online, scalars] or a list of [items, scalars]."""
        return {}

    def sent(self, online: list[int], knowledge: Rows) -> None:
        """What the online clients got of `knowledge`: equal to it but where a codec loses something. The closing distribution is
        not told, as nothing comes after it."""

    def collect(self, online: list[int], updates: Rows) -> None:
        """Take in the online clients' updates, rows in the order of `online`."""

    def state(self) -> State:
        """What lives from one round to the next and cannot be had from the clients, at the end of a round."""
        return {}

    def restore(self, state: State, theta_of: Callable[[int], Tensor]) -> None:
        """Take up such a state in a server just created.

        theta_of: a client's travelling weights as both ends knew them at the end of that round, float32 [P] on the CPU;
        the start model's where it was never drawn.
        """


class MethodModule(Protocol):
    """What `load` returns: a module of this package, or a user's."""

    Options: type
    PRESETS: dict[str, dict[str, Any]]
    Client: type[Client]
    Server: type[Server]
