"""The machine that this process runs on, be it Linux or another."""

import os
import platform
import re
from pathlib import Path


def cores() -> list[int]:
    """The cores that this process may use; all of them where the system does not tell, as macOS."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpu() -> str:
    """This host's processor, and how many of its cores this process may use: "4 cores (AMD EPYC 7763)"."""
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return f"{len(cores())} cores ({found[1] if found else platform.machine()})"
