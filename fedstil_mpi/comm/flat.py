"""Named tensors <-> one flat buffer, and the parts a message is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Names, shapes and order of the tensors that share one flat buffer of one dtype."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> "Layout":
        """The layout of these tensors, in their order. Raises TypeError where one has another dtype."""
        for name, tensor in tensors.items():
            if tensor.dtype != dtype:
                raise TypeError(f"{name} is {tensor.dtype}, the layout holds {dtype}")
        return cls(tuple(tensors), tuple(tuple(t.shape) for t in tensors.values()), dtype)

    @cached_property
    def sizes(self) -> list[int]:
        """Scalars of each tensor."""
        return [prod(shape) for shape in self.shapes]

    @cached_property
    def scalars(self) -> int:
        return sum(self.sizes)

    def pack(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """A new flat tensor [scalars] with copies of the named tensors, on their device."""
        if not self.names:
            return torch.empty(0, dtype=self.dtype)
        return torch.cat([tensors[name].detach().reshape(-1) for name in self.names])

    def unpack(self, flat: Tensor) -> dict[str, Tensor]:
        """Views into `flat` [scalars], by name and in shape."""
        pieces = flat.split(self.sizes)
        return {name: piece.view(shape) for name, shape, piece in zip(self.names, self.shapes, pieces, strict=True)}

    def unpack_rows(self, flat_KP: Tensor) -> dict[str, Tensor]:
        """The same of the rows of [K, scalars]: views [K, *shape]."""
        pieces = flat_KP.split(self.sizes, 1)
        rows = zip(self.names, self.shapes, pieces, strict=True)
        return {name: piece.view(len(flat_KP), *shape) for name, shape, piece in rows}

    @torch.no_grad()
    def load(self, flat: Tensor, tensors: Mapping[str, Tensor]) -> None:
        """Copy `flat` [scalars] into the live tensors, across devices if need be: to a GPU in one copy."""
        flat = to_device(flat, next(iter(tensors.values())).device) if self.names else flat
        for name, value in self.unpack(flat).items():
            tensors[name].copy_(value)


def to_host(tensor: Tensor) -> Tensor:
    """The tensor in host memory, complete when this returns; from a GPU by one copy into pinned memory."""
    if not tensor.is_cuda:
        return tensor
    host = torch.empty_like(tensor, device="cpu", pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensor.device).synchronize()
    return host


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; to a GPU by one copy from pinned memory, which what follows on the stream waits for."""
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


@dataclass(frozen=True)
class Part:
    """One kind of data in a message between the server and a client; its layout is known to all ranks.

    A fixed part carries `scalars` scalars per client. A ragged part carries any number of items of `scalars` scalars;
    the counts travel first. A shared part is the same for every client, so that one broadcast serves all.
    """

    kind: str
    """The word the ledger uses: weights, token, samples, people, prototypes, model, ..."""
    scalars: int
    dtype: torch.dtype = torch.float32
    ragged: bool = False
    shared: bool = False
    codec: str = "dense"
    """How the items of a ragged part are encoded for sending; see `codec`."""
    raw: int | None = None
    """Bytes of an item, of a message of bytes all in all, as dense scalars, where the sender has compressed it."""
    at_most: int | None = None
    """Of a message of bytes whose number varies: the largest number."""
    optional: bool = False
    """Whether a sender may leave a ragged part empty instead; a plan counts it as if nobody did."""
    columns: int = 0
    """Of how many vectors of P scalars an item consists, which ranks that share the server's work cut alike; 0: of none."""

    @property
    def varies(self) -> bool:
        """Whether a plan, which does not know the values, can only say what there is of it at most."""
        return self.codec != "dense" or self.at_most is not None or self.optional

    @property
    def itemsize(self) -> int:
        """Bytes of `scalars` scalars."""
        return self.scalars * self.dtype.itemsize


Message = dict[str, Tensor]
"""What one client gets or sends: kind -> tensor [scalars], or [items, scalars] for a ragged part."""

Rows = dict[str, Any]
"""What all online clients get or send, on the server: kind -> [online, scalars], or for a ragged part a list of
[items, scalars], one per online client, or for a shared part [scalars]."""
