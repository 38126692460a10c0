import platform
import resource
import subprocess
import sys

import pytest

from fedstil_mpi.launch import allocator
from fedstil_mpi.launch.allocator import keep_freed_memory

FAULTS = """
import resource
from fedstil_mpi.launch.allocator import keep_freed_memory

assert keep_freed_memory()
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [bytearray(b"1") * 2**24 for _ in range(8)]  # 128 MB in all
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 8 * 2**24 // resource.getpagesize()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
def test_what_is_freed_and_taken_again_costs_no_page_faults():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < PAGES // 100


def test_without_glibc_there_is_nothing_to_set(monkeypatch):
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
