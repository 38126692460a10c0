"""What becomes of a run whose ranks are lost, without any ranks; test_survival.py has it with them."""

from types import SimpleNamespace

import pytest

from fedstil_mpi.checkpoints import recovery
from fedstil_mpi.comm.failures import OrderlyEnd


def lost(monkeypatch, *ranks):
    """A recovery on rank 0, for which these ranks are lost one after the other; each had the only client."""
    rows = iter([[{"rank": rank, "host": "node", "clients": [0]}] for rank in ranks])
    world = SimpleNamespace(launched=[0], is_server=True, broadcast_json=lambda value: value)
    resources = SimpleNamespace(placements=next(rows))
    monkeypatch.setattr(recovery, "reassign_clients", lambda _, of: setattr(of, "placements", next(rows)))
    plan = SimpleNamespace(experiment=SimpleNamespace(lost_clients="adopt"), schedule=SimpleNamespace(clients=1))
    return recovery.Recovery(world, resources, plan, checkpoints=None, output=None, began=None)


def test_a_round_in_which_ranks_are_lost_three_times_ends_the_job(monkeypatch, capsys):
    run = lost(monkeypatch, 1, 2, 3)
    assert run.settle_losses(1)
    assert run.settle_losses(1)
    with pytest.raises(OrderlyEnd) as end:
        run.settle_losses(1)
    assert end.value.code == 1
    said = "rank 3 on node was lost in round 2; ranks were lost in this round 3 times; go on with --resume"
    assert capsys.readouterr().err == f"fedstil_mpi: {said}\n"


def test_losses_in_different_rounds_do_not_add_up(monkeypatch):
    run = lost(monkeypatch, 1, 2, 3, 4, 5)
    assert all(run.settle_losses(done) for done in (0, 0, 1, 2))
