"""A server that four hosts share by columns, with links between them: the bits of a run on one host."""

import sys

import pytest

from support import SMALL, TINY, links
from support.launch import alone
from support.results import different, lines, results

pytestmark = pytest.mark.long

RUN = [
    "-m",
    "fedstil_mpi.run",
    TINY,
    SMALL,
    "method.name=fedstil",
    "model.num_classes=1000",
    "prototypes.exchange=true",
]
"""Of 32,000 weights that travel, in eight blocks: two for each host."""


def test_results_do_not_depend_on_links_between_the_ranks(tmp_path):
    with links.network(tmp_path / "net", hosts=4, rate_mbit=100) as network:
        shared = ["placement.server=all_ranks", f"output={tmp_path / 'hosts'}"]
        done = network("mpirun", "-n", 4, sys.executable, *RUN, *shared)
        assert done.returncode == 0, done.stderr
    one = alone(*RUN, f"output={tmp_path / 'one'}")
    assert one.returncode == 0, one.stderr
    (there,), (here,) = ((tmp_path / where).iterdir() for where in ("hosts", "one"))
    assert not different(results(there), results(here))
    assert lines(there) == lines(here)
