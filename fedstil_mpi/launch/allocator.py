"""The C library's allocator, told to keep what is freed.

By its usual rules glibc gives freed memory back to the system as soon as there is much of it. A training step frees what
the next one takes again: it would fault the same pages in each time, which is a tenth of the time that small models take.
"""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt, as in malloc.h."""
NEVER = -1
LARGEST = 2**25
"""Bytes from which on a block is mapped for itself, and given back: of such there are few, and kept ones would leave gaps."""


def keep_freed_memory() -> bool:
    """Let this process use freed blocks of less than 32 MB again; returns whether it does.

    Elsewhere than on glibc there is nothing to set. Not collective.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))
