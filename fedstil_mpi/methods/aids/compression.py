"""Compression: an aid that sends weights in few bits a scalar. It wraps the two sides of a method, outermost.

Up, a client sends how far it moved, with what earlier rounds left unsent; it steps to what was really sent, and what
that leaves out waits for its next round (error feedback; Karimireddy et al., ICML 2019). Down, the server sends the
difference between a client's weights and what this client holds already, so that what was left out is in the next
difference. Both ends add up the same decoded numbers in the same order, and agree to the last bit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fedstil_mpi.client.local_training import Penalty
from fedstil_mpi.comm.flat import Layout, Message, Part, Rows
from fedstil_mpi.comm.lossy import HALVES, LossyCodec, groups, payload_part
from fedstil_mpi.config.sections import Compression
from fedstil_mpi.methods.base import Client, Server, Traffic
from fedstil_mpi.methods.federated import WEIGHTS
from fedstil_mpi.models.network import Tail
from fedstil_mpi.util.state_tree import State


@dataclass(frozen=True)
class Codecs:
    """What is sent with what; the weights of one layout with error feedback."""

    up: LossyCodec | None
    """Of the weights; None: as they are."""
    down: LossyCodec | None
    halved: dict[str, torch.dtype]
    """Kinds that are sent in 16 bits."""

    @property
    def any(self) -> bool:
        return bool(self.up or self.down or self.halved)

    @classmethod
    def of(cls, options: Compression, layout: Layout, traffic: Traffic) -> "Codecs":
        """For a method with this traffic, whose weights have this layout."""

        def codec(name: str, parts: Sequence[Part]) -> LossyCodec | None:
            travels = any(part.kind == WEIGHTS for part in parts)
            return LossyCodec(name, groups(layout), options.dead_zone) if travels and name != "none" else None

        up, down = codec(options.up, traffic.up), codec(options.down, traffic.down)
        kinds = {"prototypes": options.prototypes, "token": options.prototypes, "importance": options.importance}
        return cls(up, down, {kind: HALVES[name] for kind, name in kinds.items() if name != "none"})

    def compress(self, traffic: Traffic) -> Traffic:
        """A method's traffic as it travels."""
        return Traffic(
            down=tuple(self._travelling(part, self.down) for part in traffic.down),
            up=tuple(self._travelling(part, self.up) for part in traffic.up),
        )

    def _travelling(self, part: Part, codec: LossyCodec | None) -> Part:
        if part.kind == WEIGHTS and codec is not None:
            return payload_part(replace(part, shared=False), codec)  # clients may hold different ones
        if part.kind in self.halved:
            return replace(part, dtype=self.halved[part.kind], raw=part.itemsize)
        return part

    def halve(self, message: dict[str, Any]) -> dict[str, Any]:
        """A message, or what all online clients get or send, with its parts of the kinds that are halved."""
        return message | {kind: _to(message[kind], dtype) for kind, dtype in self.halved.items() if kind in message}

    def restored(self, message: dict[str, Any]) -> dict[str, Any]:
        """The inverse of `halve`, but for what it lost."""
        return message | {kind: _to(message[kind], torch.float32) for kind in self.halved if kind in message}


def _to(rows: Any, dtype: torch.dtype) -> Any:
    return [row.to(dtype) for row in rows] if isinstance(rows, list) else rows.to(dtype)


def _payload(codec: LossyCodec, values: Tensor) -> Tensor:
    """In the shape of its part."""
    data = codec.encode(values)
    return data if codec.exact else data[:, None]


class CompressedClient(Client):
    """A method's client whose weights travel through codecs."""

    derived = (*Client.derived, "codecs", "start_of")

    def __init__(self, inner: Client, codecs: Codecs, start_of: Callable[[Tail], Tensor]):
        """start_of: the travelling weights of a tail, float32 [P] on the CPU."""
        super().__init__(inner.learner, inner.setup, inner.options)
        self.inner = inner
        self.codecs = codecs
        self.start_of = start_of
        self.task_aware = inner.task_aware
        self.held: Tensor | None = None
        """What the server last brought this client to, [P]; at first the start model."""
        self.unsent: Tensor | None = None
        """What of its movements was not sent yet, [P]."""

    def absorb(self, knowledge: Message) -> None:
        message, codec = self.codecs.restored(knowledge), self.codecs.down
        if codec is not None:
            if self.held is None:
                self.held = self.start_of(self.learner.tail)
            if WEIGHTS in message:
                self.held = self.held + codec.decode(message[WEIGHTS].view(-1))
                message[WEIGHTS] = self.held
        self.inner.absorb(message)

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
        message = self.inner.update()
        codec = self.codecs.up
        if codec is None or WEIGHTS not in message:
            self.inner.sent(message)
            return self.codecs.halve(message)
        wanted = message[WEIGHTS] if self.unsent is None else message[WEIGHTS] + self.unsent
        payload = _payload(codec, wanted)
        got = codec.decode(payload.view(-1))
        self.unsent = wanted - got
        self.inner.sent(message | {WEIGHTS: got})
        return self.codecs.halve(message) | {WEIGHTS: payload}

    def state(self) -> State:
        return {"inner": self.inner.state(), "held": self.held, "unsent": self.unsent}

    def restore(self, state: State) -> None:
        self.inner.restore(state["inner"])
        self.held, self.unsent = state["held"], state["unsent"]


class CompressedServer(Server):
    """A method's server whose weights travel through codecs."""

    derived = (*Server.derived, "codecs")

    def __init__(self, inner: Server, codecs: Codecs):
        super().__init__(inner.setup, inner.options)
        self.inner = inner
        self.codecs = codecs
        self.held: dict[int, Tensor] = {}
        """What each client was last brought to, [P]; the start model where it is not here."""

    def knowledge(self, online: list[int]) -> Rows:
        message = self.inner.knowledge(online)
        self.relevance_KK = self.inner.relevance_KK
        codec = self.codecs.down
        if codec is None or WEIGHTS not in message:
            self.inner.sent(online, message)
            return self.codecs.halve(message)
        rows = message[WEIGHTS]
        rows = rows if rows.dim() == 2 else rows.expand(len(online), -1)
        payloads = []
        for client, wanted in zip(online, rows, strict=True):
            held = self.held.get(client, self.setup.start)
            payloads.append(_payload(codec, wanted - held))
            self.held[client] = held + codec.decode(payloads[-1].view(-1))
        self.inner.sent(online, message | {WEIGHTS: [self.held[client] for client in online]})
        return self.codecs.halve(message) | {WEIGHTS: torch.stack(payloads) if codec.exact else payloads}

    def collect(self, online: list[int], updates: Rows) -> None:
        message = self.codecs.restored(updates)
        if self.codecs.up is not None and WEIGHTS in updates:
            message[WEIGHTS] = torch.stack([self.codecs.up.decode(row.view(-1)) for row in updates[WEIGHTS]])
        self.inner.collect(online, message)

    def state(self) -> State:
        return {"inner": self.inner.state(), "held": {str(client): held for client, held in self.held.items()}}

    def restore(self, state: State, theta_of: Callable[[int], Tensor]) -> None:
        self.inner.restore(state["inner"], theta_of)
        self.held = {int(client): held for client, held in state["held"].items()}
