"""Compression: an aid that sends weights in few bits a scalar. It wraps the two sides of a method, outermost.

Up, a client sends how far it moved, with what earlier rounds left unsent; it steps to what was really sent, and what
that leaves out waits for its next round (error feedback; Karimireddy et al., ICML 2019). While all that waits is small beside
the client's weights it can wait, too, and the server goes on with what it knows of this client (Chen et al., LAG, NeurIPS 2018;
with codecs and error feedback Singh et al., SPARQ-SGD, CDC 2020). Down, the server sends the difference between a client's
weights and what this client holds already, so that what was left out is in the next difference. Both ends add up the same
decoded numbers in the same order, and agree to the last bit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fedstil_mpi.comm.flat import Layout, Message, Part, Rows
from fedstil_mpi.comm.lossy import HALVES
from fedstil_mpi.comm.wire import CLASSIFIER, Wire
from fedstil_mpi.config.sections import Compression
from fedstil_mpi.methods.aids import AidedClient, AidedServer
from fedstil_mpi.methods.aids.prototypes import PEOPLE, pids_of_begun_tasks
from fedstil_mpi.methods.base import Client, Server, Traffic
from fedstil_mpi.methods.federated import WEIGHTS
from fedstil_mpi.models.network import Tail
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.shelf import Compartment
from fedstil_mpi.util.state_tree import State


@dataclass(frozen=True)
class Codecs:
    """What is sent how; the weights with error feedback."""

    up: Wire | None
    """Of the weights; None: as they are."""
    down: Wire | None
    halved: dict[str, torch.dtype]
    """Kinds that are sent in 16 bits."""
    upload_above: float = 0.0
    """How far a client has to have moved, as a share of its weights (2-norms), to send it."""

    @classmethod
    def of(cls, options: Compression, layout: Layout, traffic: Traffic) -> "Codecs":
        """For a method with this traffic, whose weights have this layout. Raises InputError where only rows would be left to send."""
        known_rows = options.rows == "known" and CLASSIFIER in layout.names
        if known_rows and layout.names == (CLASSIFIER,):
            raise InputError(
                "compression.rows = known, but the classifier is all that travels; expected other weights beside it: set "
                "compression.rows=all, or an earlier model.split"
            )

        def wire(codec: str, parts: Sequence[Part], optional: bool = False) -> Wire | None:
            travels = any(part.kind == WEIGHTS for part in parts) and (codec != "none" or known_rows or optional)
            return Wire(WEIGHTS, layout, codec, options.dead_zone, known_rows, optional) if travels else None

        kinds = {"prototypes": options.prototypes, "token": options.prototypes, "importance": options.importance}
        halved = {kind: HALVES[name] for kind, name in kinds.items() if name != "none"}
        up = wire(options.up, traffic.up, optional=options.upload_above > 0)
        return cls(up, wire(options.down, traffic.down), halved, options.upload_above)

    @property
    def any(self) -> bool:
        return bool(self.up or self.down or self.halved)

    @property
    def known_rows(self) -> bool:
        return any(wire is not None and wire.known_rows for wire in (self.up, self.down))

    def compress(self, traffic: Traffic) -> Traffic:
        """A method's traffic as it travels."""
        down, up = self._travelling(traffic.down, self.down), self._travelling(traffic.up, self.up)
        if self.known_rows and PEOPLE not in up:
            up = (*up, PEOPLE)
        return Traffic(down, up)

    def _travelling(self, parts: Sequence[Part], wire: Wire | None) -> tuple[Part, ...]:
        found: list[Part] = []
        for part in parts:
            if part.kind == WEIGHTS and wire is not None:
                found += wire.parts  # no longer the same for all: clients may hold different ones
            elif part.kind in self.halved:
                found.append(replace(part, dtype=self.halved[part.kind], raw=part.itemsize))
            else:
                found.append(part)
        return tuple(found)

    def halve(self, message: dict[str, Any]) -> dict[str, Any]:
        """A message, or what all online clients get or send, with its parts of the kinds that are halved."""
        return message | {kind: _to(message[kind], dtype) for kind, dtype in self.halved.items() if kind in message}

    def restored(self, message: dict[str, Any]) -> dict[str, Any]:
        """The inverse of `halve`, but for what it lost."""
        return message | {kind: _to(message[kind], torch.float32) for kind in self.halved if kind in message}


def _to(rows: Any, dtype: torch.dtype) -> Any:
    return [row.to(dtype) for row in rows] if isinstance(rows, list) else rows.to(dtype)


class CompressedClient(AidedClient):
    """A method's client whose weights travel through codecs."""

    derived = (*Client.derived, "codecs", "start_of")

    def __init__(self, inner: Client, codecs: Codecs, start_of: Callable[[Tail], Tensor]):
        """start_of: the travelling weights of a tail, float32 [P] on the CPU."""
        super().__init__(inner)
        self.codecs = codecs
        self.start_of = start_of
        self.held: Tensor | None = None
        """What the server last brought this client to, [P]; at first the start model."""
        self.unsent: Tensor | None = None
        """What of its movements was not sent yet, [P]."""

    def absorb(self, knowledge: Message) -> None:
        message, wire = self.codecs.restored(knowledge), self.codecs.down
        if wire is not None:
            if self.held is None:
                self.held = self.start_of(self.learner.tail)
            if WEIGHTS in message:
                self.held = self.held + wire.unpack(message, sorted(self.learner.known))
                message[WEIGHTS] = self.held
        self.inner.absorb(message)

    def update(self) -> Message:
        message, wire = self.inner.update(), self.codecs.up
        if self.codecs.known_rows:
            message.setdefault(PEOPLE.kind, pids_of_begun_tasks(self.learner))
        if wire is None or WEIGHTS not in message:
            self.inner.sent(message)
            return self.codecs.halve(message)
        known = sorted(self.learner.known)
        wanted = message[WEIGHTS] if self.unsent is None else message[WEIGHTS] + self.unsent
        wanted = wire.only_known(wanted, known)
        packed, got = wire.nothing() if self._can_wait(wanted) else wire.send(wanted, known)
        self.unsent = wanted - got
        self.inner.sent(message | {WEIGHTS: got})
        return self.codecs.halve(message) | packed

    def _can_wait(self, wanted: Tensor) -> bool:
        """Whether it is too little to be sent. In a plan, where all is 0, nothing is."""
        if not self.codecs.upload_above:
            return False
        start = self.learner.untold.start
        assert start is not None  # that is what weights are sent as the difference to
        return bool(wanted.norm() < self.codecs.upload_above * start.norm())

    def sent(self, update: Message) -> None:
        """`update` has told the inner client what arrives."""

    def put_away(self, shelf: Compartment) -> None:
        self.inner.put_away(shelf)
        self.held, self.unsent = shelf.put("held", self.held), shelf.put("unsent", self.unsent)

    def state(self) -> State:
        return {"inner": self.inner.state(), "held": self.held, "unsent": self.unsent}

    def restore(self, state: State) -> None:
        self.inner.restore(state["inner"])
        self.held, self.unsent = state["held"], state["unsent"]


class CompressedServer(AidedServer):
    """A method's server whose weights travel through codecs."""

    derived = (*Server.derived, "codecs")
    transient = (*Server.transient, "_arriving")

    def __init__(self, inner: Server, codecs: Codecs):
        super().__init__(inner)
        self.codecs = codecs
        self._arriving: Rows = {}
        """What the online clients get of the last `knowledge`."""
        self.held = self.setup.rows()
        """What each client was last brought to, [P]; the start model where it is not here."""
        self.people: list[set[int]] = [set() for _ in range(inner.setup.clients)]
        """The people each client knows, as far as it has said; kept where only their rows travel."""

    def knowledge(self, online: list[int]) -> Rows:
        self.known = self.people if self.codecs.known_rows else None
        message, wire = super().knowledge(online), self.codecs.down
        if wire is None or WEIGHTS not in message:
            self._arriving = message
            return self.codecs.halve(message)
        rows = message.pop(WEIGHTS)
        rows = rows if len(rows.shape) == 2 else rows.expand(len(online), -1)
        packed = []
        for client, wanted in zip(online, rows, strict=True):
            held, known = self.held.get(client, self.setup.start), sorted(self.people[client])
            of_client, got = wire.send(wanted - held, known)
            packed.append(of_client)
            self.held[client] = held + got
        self._arriving = message
        travelling = {part.kind: [of_client[part.kind] for of_client in packed] for part in wire.parts}
        stacked = {part.kind: torch.stack(travelling[part.kind]) for part in wire.parts if not part.ragged}
        return self.codecs.halve(message) | travelling | stacked

    def sent(self, online: list[int], knowledge: Rows) -> None:
        arriving = self._arriving
        if self.codecs.down is not None and self.held:
            held = (self.held[client] for client in online)
            arriving = arriving | {WEIGHTS: held if self.setup.at_once else list(held)}
        self.inner.sent(online, arriving)

    def collect(self, online: list[int], updates: Rows) -> None:
        if self.codecs.known_rows:
            for client, pids in zip(online, updates[PEOPLE.kind], strict=True):
                self.people[client].update(pids[:, 0].tolist())
        message, wire = self.codecs.restored(updates), self.codecs.up
        if wire is not None and WEIGHTS in updates:
            messages = ({part.kind: updates[part.kind][row] for part in wire.parts} for row in range(len(online)))
            known = (sorted(self.people[client]) for client in online)
            rows = (wire.unpack(*of_client) for of_client in zip(messages, known, strict=True))
            in_file = self.setup.file_rows(len(online))
            message[WEIGHTS] = torch.stack(list(rows)) if in_file is None else in_file.filled(rows)
        self.inner.collect(online, message)

    def state(self) -> State:
        held = {str(client): held for client, held in self.held.items()}
        return {"inner": self.inner.state(), "held": held, "known": [sorted(known) for known in self.people]}

    def restore(self, state: State, theta_of: Callable[[int], Tensor]) -> None:
        self.inner.restore(state["inner"], theta_of)
        self.held.update({int(client): held for client, held in state["held"].items()})
        self.people = [set(known) for known in state["known"]]
