"""The C library's allocator, told to keep what is freed until it is told to return it.

By its usual rules glibc gives freed memory back to the system as soon as there is much of it. A training step frees what
the next one takes again: it would fault the same pages in each time, which is a tenth of the time that small models take.
But kept blocks come to nothing where models come and go with the clients that are drawn: torch asks for aligned memory, for
which glibc before 2.38 never takes a free block of just the right size. So between rounds they are returned.
"""

import ctypes
import platform

from fedstil_mpi.util.machine import process_memory

GLIBC = "glibc"
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt, as in malloc.h."""
NEVER = -1
LARGEST = 2**25
"""Bytes from which on a block is mapped for itself, and given back: of such there are few, and kept ones would leave gaps."""

SLACK = 2**24
"""Bytes by which a process may grow before freed ones are returned: what small models free is best taken again as it is."""


def keep_freed_memory() -> bool:
    """Let this process use freed blocks of less than 32 MB again; returns whether it does.

    Elsewhere than on glibc there is nothing to set. Not collective.
    """
    if platform.libc_ver()[0] != GLIBC:
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))


def return_freed_memory(settled: int = 0) -> int:
    """Give all pages back to the system that lie in freed blocks, unless this process has hardly grown since it took `settled` bytes.

    Returns what it takes now if they were given back, else `settled`: for the next call. Where pages cannot be given back, 0. Not
    collective.
    """
    if platform.libc_ver()[0] != GLIBC:
        return 0
    if process_memory("VmRSS") - settled < SLACK:
        return settled
    ctypes.CDLL(None).malloc_trim(0)
    return process_memory("VmRSS")
