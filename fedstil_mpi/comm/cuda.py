"""Whether MPI may be handed GPU memory."""

import ctypes
from typing import Any


def is_cuda_aware(library: Any = None) -> bool:
    """Whether the MPI library itself says that it takes GPU buffers (MPIX_Query_cuda_support); False where it is silent.

    library: a loaded C library; by default the MPI library that mpi4py uses.
    """
    query = getattr(library or mpi_library(), "MPIX_Query_cuda_support", None)
    return bool(query()) if query is not None else False


def mpi_library() -> ctypes.CDLL:
    """mpi4py's compiled module, in which the functions of the MPI library it is linked to are found too.

    They are not among this process's global symbols, because Python loads modules with their own.
    """
    from mpi4py import MPI

    return ctypes.CDLL(MPI.__file__)
