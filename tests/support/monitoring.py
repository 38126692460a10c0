"""What MPI itself counts: Open MPI's monitoring of the communicators on which messages are exchanged."""

import re
from pathlib import Path


def settings(folder: Path) -> dict[str, str]:
    """Environment variables with which a job writes its counts into a folder."""
    monitoring = {"enable": "2", "enable_output": "3", "filename": str(folder / "run")}
    return {f"OMPI_MCA_pml_monitoring_{key}": value for key, value in monitoring.items()}


def counted(folder: Path) -> list[int]:
    """Bytes in the collectives of each exchange, in no order; none where the library has no such monitoring.

    Rank 0's lines O2A (one to all) and A2O (all to one) under each communicator called "exchange".
    """
    file = folder / "run.0.prof"
    if not file.exists():
        return []
    blocks = re.split(r"^D\t", file.read_text(), flags=re.MULTILINE)
    return [
        sum(int(number) for number in re.findall(r"^(?:O2A|A2O)\t0\t(\d+) bytes", block, re.MULTILINE))
        for block in blocks
        if block.startswith("exchange\t")
    ]
