"""What tensors there are in this process."""

import gc

import torch


def storages() -> dict[int, int]:
    """Address -> bytes of all memory that tensors have to themselves: not of files, nor of numpy's arrays."""
    gc.collect()
    tensors = (thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor))
    found = (tensor.untyped_storage() for tensor in tensors if tensor.device.type == "cpu")
    return {storage.data_ptr(): storage.nbytes() for storage in found if storage.resizable()}
