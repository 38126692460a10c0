"""Which precision `model.precision: auto` stands for on the machines of a run."""

from fedstil_mpi.comm.world import World
from fedstil_mpi.util.machine import cpu_flags

NATIVE = {"avx512_bf16", "amx_bf16", "bf16"}
"""What processors with instructions for bfloat16 list, x86's and Arm's."""


def settle(world: World, precision: str, device: str) -> str:
    """ "bfloat16" for "auto" where every rank's device computes in it natively, else "float32"; others stay as they are.

    device: this rank's, "cpu" or "cuda". The same on every rank. Collective: all ranks must call.
    """
    if precision != "auto":
        return precision
    return "float32" if world.any_rank(not _native(device)) else "bfloat16"


def _native(device: str) -> bool:
    if device == "cpu":
        return not NATIVE.isdisjoint(cpu_flags())
    import torch

    return torch.cuda.get_device_capability()[0] >= 8  # Ampere
