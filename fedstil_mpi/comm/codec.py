"""How the items of a ragged part are encoded for sending where their dense form would waste it; lossless.

`sparse`: an item of which at least half are zeros travels as the places and values of the others, 8 bytes each; another
one as it is. Either is preceded by the number of places (int64, -1 for a dense item).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedstil_mpi.comm.flat import Part


def encoded_part(part: Part) -> Part:
    """The part as it travels: itself, or so many bytes."""
    return part if part.codec == "dense" else Part(part.kind, 1, torch.uint8, ragged=True)


def encode(part: Part, items: Tensor) -> Tensor:
    """float32 [n, scalars] -> uint8 [bytes, 1]; unchanged for a part without a codec."""
    if part.codec == "dense":
        return items
    return torch.cat([torch.empty(0, dtype=torch.uint8), *(_written(item.cpu()) for item in items)])[:, None]


def decode(part: Part, data: Tensor) -> Tensor:
    """The inverse of `encode`."""
    if part.codec == "dense":
        return data
    items, rest = [torch.empty(0, part.scalars)], data[:, 0]
    while len(rest):
        item, rest = _read(rest, part.scalars)
        items.append(item[None])
    return torch.cat(items)


def encode_all(part: Part, rows: Sequence[Tensor]) -> list[Tensor]:
    return [encode(part, items) for items in rows]


def decode_all(part: Part, rows: Sequence[Tensor]) -> list[Tensor]:
    return [decode(part, items) for items in rows]


def _written(item: Tensor) -> Tensor:
    places = item.nonzero()[:, 0]
    if 2 * len(places) > len(item):
        return torch.cat([torch.tensor([-1]).view(torch.uint8), item.contiguous().view(torch.uint8)])
    numbers = [torch.tensor([len(places)]), places.to(torch.int32), item[places].contiguous()]
    return torch.cat([part.view(torch.uint8) for part in numbers])


def _read(data: Tensor, scalars: int) -> tuple[Tensor, Tensor]:
    """The first item of `data` [bytes], dense, and what follows it."""
    count = int(_as(data[:8], torch.int64))
    if count < 0:
        end = 8 + 4 * scalars
        return _as(data[8:end], torch.float32), data[end:]
    middle, end = 8 + 4 * count, 8 + 8 * count
    item = torch.zeros(scalars)
    item[_as(data[8:middle], torch.int32).long()] = _as(data[middle:end], torch.float32)
    return item, data[end:]


def _as(data: Tensor, dtype: torch.dtype) -> Tensor:
    return data.clone().view(dtype)  # a copy, because the bytes may lie where no number of that type may begin
