"""Hosts with real links between them, for tests: network namespaces, which edge_net.py makes and starts mpirun on.

FEDSTIL_NETNS names the folder of edge_net.py, which needs root.
"""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.launch import environment, find_mpirun


@contextmanager
def network(state, hosts, rate_mbit, delay_ms=0):
    """Calls edge_net.py on a network that is up, and returns what has become of it; skips where there can be none.

    state: a folder for what edge_net.py notes; rate_mbit, delay_ms: between two hosts, one way.
    """
    folder = os.environ.get("FEDSTIL_NETNS")
    if not folder:
        pytest.skip("FEDSTIL_NETNS names no folder with edge_net.py")
    if os.geteuid():
        pytest.skip("only root can make network namespaces")
    if Path("/run/netns/edge0").exists():
        pytest.skip("a network of that name is up already")
    own = environment({"EDGE_NET_DIR": str(state), "MPIRUN": find_mpirun()})

    def call(*arguments):
        command = [sys.executable, f"{folder}/edge_net.py", *map(str, arguments)]
        return subprocess.run(
            command, env=own, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=400
        )  # fmt: skip

    try:
        up = call("up", "--hosts", hosts, "--rate-mbit", rate_mbit, "--delay-ms", delay_ms)
        if up.returncode:
            pytest.skip(f"edge_net.py failed: {up.stderr.strip().splitlines()[-1:]}")
        yield call
    finally:
        call("down")
