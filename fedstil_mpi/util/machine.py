"""What a measurement was made on."""

import os
import platform
import re
from pathlib import Path


def cpu() -> str:
    """This host's processor, and how many of its cores this process may use: "4 cores (AMD EPYC 7763)"."""
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return f"{len(os.sched_getaffinity(0))} cores ({found[1] if found else platform.machine()})"
