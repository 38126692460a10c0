"""What a rank does, named in the traces of Nsight Systems."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from fedstil_mpi.util.errors import InputError


def ranges(wanted: bool) -> Callable[[str], AbstractContextManager]:
    """What opens a range of a name, or nothing where none are wanted. Raises InputError where torch knows no ranges."""
    if not wanted:
        return nullcontext
    import torch

    if torch.version.cuda is None:
        raise InputError(
            "placement.nvtx names ranges for a GPU's traces, but this torch is without CUDA; set it to false"
        )
    return torch.cuda.nvtx.range
