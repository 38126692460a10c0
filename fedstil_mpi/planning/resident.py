"""What a process really did with images and took of memory, to hold a forecast against."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch

from fedstil_mpi.client.learner import Learner
from fedstil_mpi.models.torchvision_cpu import import_models
from fedstil_mpi.util.machine import process_memory
from fedstil_mpi.util.plugins import is_plugin


def libraries(backbone: str) -> int:
    """Bytes that the program takes before it does anything: call before a model is built."""
    if not is_plugin(backbone):
        import_models()  # a quarter of it, and only imported when a model is built
    return process_memory("VmRSS")


def peak() -> int:
    """The most bytes of this process that were in memory at a time.

    Not `getrusage`: a process that was started by a larger one inherits the other's peak there.
    """
    return process_memory("VmHWM")


def measure(learners: Iterable[Learner], before: int) -> dict[str, Any]:
    """What this rank did, as plain values: images passed by kind, and the peaks in bytes (gpu: of torch's tensors).

    before: what `libraries` was when the run began.
    """
    forward_counts: Counter[str] = sum((learner.forward_counts for learner in learners), Counter())
    gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {"forward_counts": forward_counts, "host": peak(), "gpu": gpu, "libraries": before}
