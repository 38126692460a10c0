"""What the system tells of a process, and where it tells less."""

from pathlib import Path

import pytest

from fedstil_mpi.util import machine


@pytest.mark.parametrize("status", ["Name:\tpython\nVmRSS:\t     7 kB\n", None])
def test_where_the_system_does_not_tell_the_peak_it_is_that_of_getrusage(monkeypatch, status):
    """As in some containers (gVisor's /proc), or on macOS, which has none."""

    def read(path: Path) -> str:
        if status is None:
            raise FileNotFoundError(path)
        return status

    monkeypatch.setattr(machine.Path, "read_text", read)
    assert machine.process_memory("VmHWM") > 10_000_000
    assert (machine.process_memory("VmRSS") == 7 * 1024) == (status is not None)
