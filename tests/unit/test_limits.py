"""What a plan says a run needs of this host, and which of it is short first."""

from types import SimpleNamespace

import pytest

from fedstil_mpi.planning import limits
from fedstil_mpi.planning.limits import Need
from fedstil_mpi.util.errors import InputError
from support.forecasts import make

FEW = ["rounds.clients_per_round=1", "rounds.total=6"]


def test_the_nearest_to_its_limit_is_told():
    near = [Need("memory", 6 * 10**9, 8 * 10**9), Need("disk", 5 * 10**9, 50 * 10**9)]
    assert limits.line(near) == "first to run out on this host: memory: 6.0 GB of 8.0 GB free here"
    above = [*near, Need("files", 3 * 10**9, 10**9)]
    assert limits.line(above) == "warning: too large for this host: files: 3.0 GB of 1.0 GB free here"


def test_memory_is_that_of_all_ranks_with_their_libraries(tmp_path):
    ranks = [SimpleNamespace(host=lambda size=size: size) for size in (5, 7)]
    (memory,) = limits.needs(SimpleNamespace(footprints=ranks, checkpoints=0, away=0), 100, tmp_path)
    assert memory.bytes == 5 + 7 + 2 * 100
    needed = limits.needs(SimpleNamespace(footprints=ranks, checkpoints=3, away=4), 100, tmp_path / "not" / "yet")
    assert [need.bytes for need in needed[1:]] == [3, 4]


def test_of_clients_that_are_away_nothing_is_in_memory():
    """One has its model in memory, and the server has rows of none."""
    here, away = (make(*FEW, f"placement.away={where}", ranks=2) for where in ("memory", "files"))
    drawn = len(here.learners)
    assert (drawn > 1, here.away) == (True, 0)
    tail = (here.footprints[1].parts["tails"] - away.footprints[1].parts["tails"]) / (drawn - 1)
    row = (here.footprints[0].parts["server"] - away.footprints[0].parts["server"]) / drawn
    assert away.away == drawn * (tail + row)
    assert 0 < row <= tail


def test_a_checkpoint_holds_those_who_took_part_since_the_last():
    """Two of three clients are on the second rank, and one is drawn a round."""
    nothing = "memory.size=0", "prototypes.metric=false", "prototypes.norms=0"  # is kept by a client beside its model
    drawn = {every: make(*FEW, *nothing, f"checkpoint.every={every}", ranks=3) for every in (0, 1, 6)}
    held = {every: of.footprints[1].parts.get("checkpoint", 0) for every, of in drawn.items()}
    everyone = sum(client in drawn[1].learners for client in drawn[1].placements[1]["clients"])
    assert (held[0], held[6]) == (0, everyone * held[1])


def test_in_waves_memory_does_not_grow_with_those_who_are_online():
    """Twice as many clients, all of them online: three at a time have models, messages and copies for a checkpoint."""
    waves = (
        "placement.away=files",
        "placement.at_once=3",
        "model.num_classes=99",
        "prototypes.exchange=false",
        "memory.size=0",
    )
    six, twelve = (make(f"data.synthetic.clients={clients}", *waves, ranks=2) for clients in (6, 12))
    assert six.places.at_once == twelve.places.at_once == 3
    for part in ("tails", "exchange", "checkpoint"):
        assert twelve.footprints[1].parts[part] == six.footprints[1].parts[part]
    assert twelve.away == 2 * six.away


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_server_that_no_ranks_can_share_is_refused_whatever_their_number(ranks):
    with pytest.raises(InputError, match="all_ranks, which fedweit"):
        make("method.name=fedweit", "placement.server=all_ranks", ranks=ranks)
