"""single: every client learns alone on its own stream (the lower bound); nothing travels after first contact."""

from dataclasses import dataclass
from typing import Any

from fedstil_mpi.methods.base import Client, Server

__all__ = ["PRESETS", "REFERENCE_CODE", "Client", "Options", "Server"]


@dataclass(kw_only=True)
class Options:
    """Learning alone has nothing to choose."""


REFERENCE_CODE: dict[str, Any] = {
    "train.softmax": "all",
    "train.steps": 0,
    "train.early_stop": True,
    "train.rate": "reference_code",
    "train.augment": "default",
    "train.refresh": "epoch",
    "evaluation.protocol": "reference_code",
}
"""What all methods have in common there. How many exemplars are kept, where any are, is a matter of the experiment."""

PRESETS: dict[str, dict[str, Any]] = {
    "best": {},
    "paper": {"memory.size": 0, "train.softmax": "all"},
    "reference_code": REFERENCE_CODE | {"memory.size": 0},
}
