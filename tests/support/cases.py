"""What the tests of all methods share: small tasks, settings that go with them, and every method in every preset."""

from fedstil_mpi import methods
from support import tiny

STREAMS = [
    [tiny.task(1, 2, seed=1), tiny.task(3, 4, seed=2), tiny.task(5, 6, seed=3)],
    [tiny.task(2, 5, seed=4), tiny.task(1, 6, seed=5), tiny.task(3, 7, seed=6)],
    [tiny.task(7, 8, seed=7), tiny.task(9, 10, seed=8), tiny.task(2, 8, seed=9)],
]
SETTINGS = {"train.steps": 2, "train.batch": 8, "rounds.per_task": 1, "memory.size": 6}
STEADY = {"train.early_stop": False, "train.rate": "constant"}
"""With steps: what the reference code's presets have counts epochs."""
PRESETS = [(name, preset) for name in methods.names() for preset in methods.load(name).PRESETS]
REFERENCED = [name for name, preset in PRESETS if preset == "reference_code"]
"""Methods that FedSTIL's reference code has, too."""
FEDERATED = (
    "ditto",
    "fedavg",
    "fedcurv",
    "fedfomo",
    "fedper",
    "fedprox",
    "fedstil",
    "fedstil_atten",
    "fedweit",
    "pfedgraph",
)
"""Methods whose weights travel."""
IDLE = {
    "compression.importance": set(FEDERATED) - {"fedcurv"},
    "compression.down": {"fedfomo", "fedstil_atten"},
    "compression.rows": {"fedper"},
}
"""With which of these a codec changes nothing, and is refused."""

STRANGER = [tiny.task(1, 9, seed=10), tiny.task(2, 3, seed=11), tiny.task(4, 5, seed=12)]
"""Tasks of a client beside those of STREAMS."""

EPOCHS = {"train.steps": 0, "train.epochs": 2}

OF_THEIR_OWN = {"fedfomo", "ewc", "mas", "fedcurv", "icarl"}
"""Methods that pass images for importances, or for an old model's logits."""


def working(method: str, *settings: str) -> list[str]:
    """Those of these settings, section.key=value, that are not idle with a method."""
    return [setting for setting in settings if method not in IDLE.get(setting.partition("=")[0], ())]
