"""What a pause costs: nothing that was trained before it is trained again."""

import json

import pytest

from fedstil_mpi.launch.signals import PAUSED
from fedstil_mpi.results import RESULTS_FILE
from fedstil_mpi.util import hdf5
from support import SMALL, TINY
from support.launch import SCRIPTS, alone, mpirun

SETTINGS = (SMALL, "train.steps=6", "data.synthetic.clients=2", "data.tasks=1", "rounds.total=2", "rounds.per_task=2")
STEPS = 2 * 2 * 6


def steps(ranks, folder, moment=0):
    """Exit code and number of steps, of all ranks."""
    arguments = (SCRIPTS / "steps.py", folder, TINY, str(moment), *SETTINGS, "placement.clients=fixed")
    done = alone(*arguments) if ranks == 1 else mpirun(ranks, arguments)
    return tuple(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.long
@pytest.mark.parametrize("moment", [2, 9, 23], ids=["first client", "second client", "second round"])
def test_what_was_trained_in_the_first_round_too_is_not_trained_again(tmp_path, moment):
    code, before = steps(1, tmp_path, moment)
    assert code == PAUSED
    assert steps(1, tmp_path) == (0, STEPS - before)


def test_a_second_pause_keeps_what_clients_had_trained_that_were_not_reached(tmp_path):
    """Two ranks stop half-way in their clients' rounds; one rank goes on, stops after a step of the first, and goes on again. Both times are on record, alike as they are."""
    code, first = steps(3, tmp_path, 4)
    assert (code, steps(1, tmp_path, 1)) == (PAUSED, (PAUSED, 1))
    assert steps(1, tmp_path) == (0, STEPS - first - 1)
    with hdf5.parsed(tmp_path / "tiny" / RESULTS_FILE, "results") as file:
        events = json.loads(file.attrs["events"])
    assert events == 2 * [{"event": "resumed", "after_round": 0, "ranks": 1}]
