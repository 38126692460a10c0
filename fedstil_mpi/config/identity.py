"""Which keys of a config decide a run's results, and so which runs are the same."""

import hashlib
import json
from typing import Any

from fedstil_mpi.config.loading import leaves
from fedstil_mpi.config.schema import Experiment

NOT_DECIDING = (
    *("name", "output", "resume", "fault_tolerance", "lost_clients"),
    *("save_models", "checkpoint", "exchange", "placement"),
)
"""Keys and sections that do not change a run's results."""


def deciding(tree: dict[str, Any]) -> dict[str, Any]:
    """What decides the results of a run with this config, by "section.key"."""
    return {key: value for key, value in leaves(tree) if key.split(".")[0] not in NOT_DECIDING}


def fingerprint(experiment: Experiment) -> str:
    """SHA-256, hexadecimal, of what decides the run's results."""
    found = deciding(json.loads(experiment.as_json()))
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
