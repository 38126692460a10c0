"""What searches change of a client lies beside its file, and together they are what the client is."""

import json
from types import SimpleNamespace

from fedstil_mpi.checkpoints import searches
from fedstil_mpi.checkpoints.searches import bring_up_to_date, gather
from fedstil_mpi.federation.rounds import NoCheckpoints, run_rounds, validate
from fedstil_mpi.federation.schedule import plan as schedule_of
from fedstil_mpi.util.state_tree import flatten
from support import played, tiny

WORLD = SimpleNamespace(gather_json=lambda value: [json.loads(json.dumps(value))])
"""Of one rank."""


def plain(state) -> str:
    """All of it but the tensors, as text: nan is equal to nan."""
    return json.dumps(flatten(state)[1], sort_keys=True)


def searched_after_it_was_written():
    """A federation, and what was written of its clients before they were searched."""
    schedule = schedule_of(1, 4, 3, 1, 2, 2, 2)
    f = played.federation(tiny.experiment({"train.steps": 1}, "fedavg"), played.FOUR, schedule)
    run_rounds(f, NoCheckpoints())
    f.found.clear()
    written = {client: f.client_state(client) | {"round": 2} for client in f.clients}
    f.changed.clear()
    validate(f, 2, served=False)
    return f, written


def test_a_file_and_what_lies_beside_it_are_the_client():
    f, written = searched_after_it_was_written()
    assert (f.changed, f.searched) == (set(), {0, 1, 2, 3})
    found = gather(WORLD, f, 3)
    drawn = [client for client in f.clients if f.clients[client].learner.draws]
    assert sorted(map(int, found["clients"])) == drawn
    for client in drawn:
        before, now = plain(written[client]), plain(f.client_state(client) | {"round": 2})
        assert before != now
        assert bring_up_to_date(written[client], client, found)
        assert plain(written[client]) == now


def test_of_a_client_that_has_changed_since_nothing_is_taken():
    f, written = searched_after_it_was_written()
    drawn = next(client for client in f.clients if f.clients[client].learner.draws)
    found = gather(WORLD, f, 3)
    assert not bring_up_to_date(written[drawn] | {"round": 4}, drawn, found)
    f.change(drawn)
    assert drawn not in f.searched
    assert str(drawn) not in gather(WORLD, f, 4)["clients"]


def test_where_nobody_was_searched_there_is_nothing():
    nothing = searches.read(SimpleNamespace(read=lambda name: None))
    assert not bring_up_to_date({"round": 1}, 0, nothing)
