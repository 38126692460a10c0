"""What memory tensors hold, and this process."""

import gc
import re
from pathlib import Path

import torch


def resident() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as file:
        return 4096 * int(file.read().split()[1])


def storages() -> dict[int, int]:
    """Address -> bytes of all memory that tensors have, but for what is mapped from files without a name."""
    gc.collect()
    tensors = (thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor))
    storages = (tensor.untyped_storage() for tensor in tensors if tensor.device.type == "cpu")
    found = {storage.data_ptr(): storage.nbytes() for storage in storages}
    files = re.findall(r"^(\w+)-(\w+) .* \(deleted\)$", Path("/proc/self/maps").read_text(), re.MULTILINE)
    spans = [range(int(start, 16), int(end, 16)) for start, end in files]
    return {address: size for address, size in found.items() if not any(address in span for span in spans)}
