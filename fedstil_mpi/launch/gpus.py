"""The GPUs and MIG slices of this node, found through NVML: no CUDA context is made and torch is not imported."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pynvml


@dataclass(frozen=True)
class Gpu:
    """What a CUDA process can be pinned to: a whole GPU, or one slice of a GPU in MIG mode."""

    id: str
    """What is put into CUDA_VISIBLE_DEVICES: a UUID, or an index where the user's own list has indices."""
    name: str


@dataclass(frozen=True)
class Card:
    """A physical GPU that this process may use."""

    id: str
    name: str
    slices: tuple[Gpu, ...] | None
    """None where MIG mode is off."""


def find_gpus(visible: str | None, nvml: Any = pynvml) -> tuple[list[Gpu], str]:
    """The GPUs this process may use, and if there is none, why.

    visible: the value of CUDA_VISIBLE_DEVICES, None where it is not set (then all are listed, by UUID, because CUDA and
    NVML number cards differently). nvml: a stand-in for the module pynvml.
    """
    try:
        nvml.nvmlInit()
        try:
            cards = list(_cards(nvml))
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError as error:
        return [], f"NVML: {error}"
    if visible is None:
        gpus = [gpu for card in cards for gpu in (_whole(card) if card.slices is None else card.slices)]
        return gpus, "" if gpus else f"NVML lists {len(cards)} usable GPUs and no MIG slice"
    gpus = list(_named(visible, cards))
    return gpus, "" if gpus else f"CUDA_VISIBLE_DEVICES={visible!r} names none of its {len(cards)} GPUs"


def _whole(card: Card) -> tuple[Gpu]:
    return (Gpu(card.id, card.name),)


def _cards(nvml: Any) -> Iterator[Card]:
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError_NoPermission:  # counted, but given to another job
            continue
        yield Card(nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle), _slices(nvml, handle))


def _slices(nvml: Any, handle: Any) -> tuple[Gpu, ...] | None:
    try:
        current, _pending = nvml.nvmlDeviceGetMigMode(handle)
    except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):  # the card's kind, or an old driver
        return None
    if current != nvml.NVML_DEVICE_MIG_ENABLE:
        return None
    slices = []
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except nvml.NVMLError_NotFound:  # the numbers of the slices have gaps
            continue
        slices.append(Gpu(nvml.nvmlDeviceGetUUID(part), nvml.nvmlDeviceGetName(part)))
    return tuple(slices)


def _named(visible: str, cards: list[Card]) -> Iterator[Gpu]:
    """The entries of CUDA_VISIBLE_DEVICES in their order, up to the first that names no GPU, as CUDA reads it."""
    for entry in visible.split(","):
        name = _name(entry.strip(), cards)
        if name is None:
            return
        yield Gpu(entry.strip(), name)


def _name(entry: str, cards: list[Card]) -> str | None:
    """The name of the GPU an entry means: an index, or a UUID or its beginning. None if there is no such GPU."""
    if entry.isdecimal():
        return cards[int(entry)].name if int(entry) < len(cards) else None
    if entry.startswith("MIG-"):
        slices = [gpu for card in cards for gpu in card.slices or ()]
        named = [gpu.name for gpu in slices if gpu.id.startswith(entry)]
        return named[0] if named else None
    named = [card.name for card in cards if entry.startswith("GPU-") and card.id.startswith(entry)]
    return named[0] if named else None
