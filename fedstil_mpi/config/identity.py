"""Which keys of a config decide a run's results, and so which runs are the same."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedstil_mpi.config.files import leaves
from fedstil_mpi.config.loading import PLUGINS

NOT_DECIDING = (
    *("name", "output", "resume", "fault_tolerance", "lost_clients"),
    *("save_models", "tracking", "checkpoint", "exchange", "placement"),
)
"""Keys and sections that do not change a run's results."""


def deciding(tree: dict[str, Any], contents: dict[str, str]) -> dict[str, Any]:
    """What decides the results of a run with this config, by "section.key".

    contents: key -> what is in the file or folder that it names, which stands for the path. A plug-in's file is known by
    its name, as it may be corrected before a run goes on.
    """
    found = {key: value for key, value in leaves(tree) if key.split(".")[0] not in NOT_DECIDING}
    for key in map(".".join, PLUGINS):
        if str(found.get(key)).endswith(".py"):
            found[key] = Path(found[key]).name
    return found | contents


def fingerprint(decided: Mapping[str, Any]) -> str:
    """SHA-256, hexadecimal, of what decides the run's results."""
    return hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()
