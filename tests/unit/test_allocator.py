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
RETURNS = """
from fedstil_mpi.launch import allocator
from fedstil_mpi.util.machine import process_memory

allocator.keep_freed_memory()


def taken_and_freed(megabytes):
    blocks = [bytearray(b"1") * 2**20 for _ in range(megabytes)]
    del blocks
    return process_memory("VmRSS")


before = process_memory("VmRSS")
kept = taken_and_freed(64)
settled = allocator.return_freed_memory(before)
print(kept - settled)
kept = taken_and_freed(8)
print(allocator.return_freed_memory(settled) - settled, process_memory("VmRSS") - kept)
"""
PAGES = 8 * 2**24 // resource.getpagesize()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
def test_what_is_freed_and_taken_again_costs_no_page_faults():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < PAGES // 100


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
def test_freed_memory_is_given_back_where_there_is_much_of_it():
    done = subprocess.run([sys.executable, "-c", RETURNS], capture_output=True, text=True, check=True)
    given_back, baseline, by_little = map(int, done.stdout.split())
    assert given_back > 56 * 2**20
    assert (baseline, by_little) == (0, 0)


def test_without_glibc_there_is_nothing_to_set(monkeypatch):
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
    assert allocator.return_freed_memory() == 0
