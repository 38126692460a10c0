"""First contact: what a client needs of the start model before anything else can be sent to it."""

from collections.abc import Collection

import torch
from torch import Tensor

from fedstil_mpi.comm.exchange import Exchange
from fedstil_mpi.comm.flat import Layout, Part, to_host
from fedstil_mpi.comm.ledger import DOWN
from fedstil_mpi.comm.lossy import LossyCodec, groups, payload_part
from fedstil_mpi.models.network import Network, network_state


class InitialModel:
    """Sends the start model to clients that have not had it yet.

    It is moved once, to all ranks, when the first clients get it; a rank whose client joins later has it already, and only
    the ledger hears of it. Tensors that a shared checkpoint already gave to every client are not sent. Nor are the travelling weights to a
    client that joins once others have sent theirs, since the server's knowledge brings their current values.
    """

    def __init__(self, network: Network, provided: Collection[str], travelling: Collection[str], codec: str = "none"):
        """travelling: names, relative to the tail, of the parameters that the method's knowledge carries.

        codec: what floats are sent with. The network, unless it is on the device meta, takes up what arrives of it.
        """
        self.met: set[int] = set()
        self.network = network
        self._state = network_state(network)
        missing = {name: tensor for name, tensor in self._state.items() if name not in provided}
        carried = {f"tail.{name}" for name in travelling}
        self._first = _Payload(missing, codec)
        self._late = _Payload({name: tensor for name, tensor in missing.items() if name not in carried}, codec)
        if codec != "none":
            self._first.load(self._first.pack(self._state), self._state)

    def send_to_new_clients(self, exchange: Exchange, round: int, online: list[int], *, complete: bool) -> list[int]:
        """Send the start model to those of `online` that are new, and return them. Collective: all ranks must call.

        complete: also what knowledge carries, since none follows; so it is for the first.
        It arrives in `network`, of which this rank's new clients then take their copy.
        """
        first, new = not self.met, [client for client in online if client not in self.met]
        self.met.update(new)
        if not new:
            return []
        payload = self._payload(complete)
        if first:
            start = payload.pack(self._state) if exchange.is_server else {}
            payload.load(exchange.broadcast(round, payload.parts, new, start), self._state)
        elif exchange.is_server:
            for part in payload.parts:
                exchange.ledger.book_rows(round, DOWN, part, new, None)
        return new

    def parts(self, *, complete: bool) -> tuple[Part, ...]:
        """What a new client gets."""
        return self._payload(complete).parts

    def _payload(self, complete: bool) -> "_Payload":
        return self._first if complete else self._late


class _Payload:
    """Some of the state's tensors as flat parts: matrices, vectors, and the counters of batch norms."""

    def __init__(self, tensors: dict[str, Tensor], codec: str):
        """codec: of the floats. int8 spares the vectors, among which variances can differ by orders of magnitude."""
        floats = {name: t for name, t in tensors.items() if t.is_floating_point()}
        vectors = {name: t for name, t in floats.items() if t.dim() < 2 and codec == "int8"}
        matrices = {name: t for name, t in floats.items() if name not in vectors}
        counters = {name: t for name, t in tensors.items() if not t.is_floating_point()}
        kinds = {"model": matrices, "vectors": vectors, "counters": counters}
        dtypes = {"counters": torch.int64}
        self._layouts = {k: Layout.of(of_k, dtypes.get(k, torch.float32)) for k, of_k in kinds.items() if of_k}
        names = {"model": codec, "vectors": "float16"} if codec != "none" else {}
        self._codecs = {k: LossyCodec(names[k], groups(layout)) for k, layout in self._layouts.items() if k in names}
        plain = {k: Part(k, layout.scalars, layout.dtype, shared=True) for k, layout in self._layouts.items()}
        self.parts = tuple(payload_part(p, self._codecs[k]) if k in self._codecs else p for k, p in plain.items())

    def pack(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        flat = {k: layout.pack(state) for k, layout in self._layouts.items()}
        return flat | {k: codec.encode(to_host(flat[k])) for k, codec in self._codecs.items()}

    def load(self, message: dict[str, Tensor], state: dict[str, Tensor]) -> None:
        for k, layout in self._layouts.items():
            layout.load(self._codecs[k].decode(message[k]) if k in self._codecs else message[k], state)
