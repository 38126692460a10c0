"""single: every client learns alone on its own stream (the lower bound); nothing travels after first contact."""

from dataclasses import dataclass
from typing import Any

from fedstil_mpi.methods.base import Client, Server

__all__ = ["PRESETS", "Client", "Options", "Server"]


@dataclass(kw_only=True)
class Options:
    """Learning alone has nothing to choose."""


PRESETS: dict[str, dict[str, Any]] = {
    "best": {},
    "paper": {"memory.size": 0, "train.softmax": "all"},
    "reference_code": {
        "memory.size": 0,
        "train.softmax": "all",
        "train.steps": 0,
        "train.early_stop": True,
        "train.rate": "reference_code",
        "train.augment": "default",
        "train.refresh": "epoch",
        "evaluation.protocol": "reference_code",
    },
}
