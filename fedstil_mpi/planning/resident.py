"""What a process really did with images and took of memory, to hold a forecast against."""

import resource
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from fedstil_mpi.client.learner import Learner
from fedstil_mpi.models.torchvision_cpu import import_models
from fedstil_mpi.util.plugins import is_plugin


def libraries(backbone: str) -> int:
    """Bytes that the program takes before it does anything: call before a model is built."""
    if not is_plugin(backbone):
        import_models()  # a quarter of it, and only imported when a model is built
    return _status("VmRSS")


def peak() -> int:
    """The most bytes of this process that were in memory at a time.

    Not `getrusage`: a process that was started by a larger one inherits the other's peak there.
    """
    return _status("VmHWM")


def measure(learners: Iterable[Learner], before: int) -> dict[str, Any]:
    """What this rank did, as plain values: images passed by kind, and the peaks in bytes (gpu: of torch's tensors).

    before: what `libraries` was when the run began.
    """
    forward_counts: Counter[str] = sum((learner.forward_counts for learner in learners), Counter())
    gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {"forward_counts": forward_counts, "host": peak(), "gpu": gpu, "libraries": before}


def _status(key: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # macOS: the peak is all that it tells
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))
