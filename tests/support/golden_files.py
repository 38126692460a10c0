"""Where the golden numbers are: `tests/golden`, or the folder that the environment variable GOLDEN_DIR names."""

import os
from pathlib import Path


def golden(topic: str) -> list[Path]:
    """The files of a topic, `<topic>_<case>.npz`, sorted."""
    folder = Path(os.environ.get("GOLDEN_DIR") or Path(__file__).parents[1] / "golden")
    return sorted(folder.glob(f"{topic}_*.npz"))
