"""The machine that this process runs on, be it Linux or another."""

import os
import platform
import re
import resource
import sys
from contextlib import suppress
from pathlib import Path


def cores() -> list[int]:
    """The cores that this process may use; all of them where the system does not tell, as macOS."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpu() -> str:
    """This host's processor, and how many of its cores this process may use: "4 cores (AMD EPYC 7763)"."""
    return f"{len(cores())} cores ({_of_cpu('model name') or platform.machine()})"


def cpu_flags() -> set[str]:
    """The processor's extensions under Linux's names, such as "avx2"; empty where the system does not tell."""
    return set((_of_cpu("flags") or _of_cpu("Features") or "").split())


def free_memory() -> int | None:
    """Bytes that programs can still have on this host; None where the system does not tell."""
    try:
        found = re.search(r"^MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        return None
    return 1024 * int(found[1]) if found else None


def process_memory(key: str) -> int:
    """Bytes of this process: now (VmRSS), or at its peak (VmHWM), which is all that macOS and some containers tell."""
    with suppress(OSError):
        if found := re.search(rf"^{key}:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE):
            return 1024 * int(found[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _of_cpu(key: str) -> str | None:
    try:
        found = re.search(rf"^{key}\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return None
    return found[1] if found else None
