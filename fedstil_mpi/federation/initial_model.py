"""First contact: what a client needs of the start model before anything else can be sent to it."""

from collections.abc import Collection

import torch

from fedstil_mpi.comm.exchange import Exchange
from fedstil_mpi.comm.flat import Layout, Part
from fedstil_mpi.models.network import Network, network_state


class InitialModel:
    """Sends the start model to clients that have not had it yet.

    Tensors that a shared checkpoint already gave to every client are not sent. Nor are the travelling weights to a
    client that joins after the first round, since the server's knowledge brings their current values.
    """

    def __init__(self, network: Network, provided: Collection[str], travelling: Collection[str]):
        """travelling: names, relative to the tail, of the parameters that the method's knowledge carries."""
        self.met: set[int] = set()
        self.network = network
        self._state = network_state(network)
        missing = {name: tensor for name, tensor in self._state.items() if name not in provided}
        carried = {f"tail.{name}" for name in travelling}
        self._first = _Payload(missing)
        self._late = _Payload({name: tensor for name, tensor in missing.items() if name not in carried})

    def send_to_new_clients(self, exchange: Exchange, round: int, online: list[int]) -> list[int]:
        """Send the start model to those of `online` that are new, and return them. Collective: all ranks must call.

        It arrives in `network`, of which this rank's new clients then take their copy.
        """
        new = [client for client in online if client not in self.met]
        self.met.update(new)
        if not new:
            return []
        payload = self._first if round == 1 else self._late
        start = payload.pack(self._state) if exchange.is_server else {}
        messages = exchange.down(round, payload.parts, new, start)
        if messages:
            payload.load(next(iter(messages.values())), self._state)  # it is the same for all
        return new

    def parts(self, round: int) -> tuple[Part, ...]:
        """What a client new in this round gets."""
        return (self._first if round == 1 else self._late).parts


class _Payload:
    """Some of the state's tensors as two flat parts: floats, and the counters of batch norms."""

    def __init__(self, tensors: dict[str, torch.Tensor]):
        floats = {name: t for name, t in tensors.items() if t.is_floating_point()}
        integers = {name: t for name, t in tensors.items() if not t.is_floating_point()}
        self._layouts = {"model": Layout.of(floats), "counters": Layout.of(integers, torch.int64)}
        self.parts = tuple(
            Part(kind, layout.scalars, layout.dtype, shared=True)
            for kind, layout in self._layouts.items()
            if layout.scalars
        )

    def pack(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {part.kind: self._layouts[part.kind].pack(state) for part in self.parts}

    def load(self, message: dict[str, torch.Tensor], state: dict[str, torch.Tensor]) -> None:
        for part in self.parts:
            self._layouts[part.kind].load(message[part.kind], state)
