"""Of a client there is nothing before it takes part: no side of the method, no model, no image."""

import pytest

from fedstil_mpi.client.learner import Learner
from fedstil_mpi.comm.exchange import InProcessExchange
from fedstil_mpi.config.synthetic import SyntheticOptions
from fedstil_mpi.data.streams.on_demand import TasksOnDemand
from fedstil_mpi.data.streams.synthetic import SyntheticStream
from fedstil_mpi.federation.messages import message_schema
from fedstil_mpi.federation.roster import Roster
from fedstil_mpi.federation.rounds import NoCheckpoints, run_rounds
from fedstil_mpi.federation.schedule import plan as schedule_of
from fedstil_mpi.federation.setup import connect
from fedstil_mpi.federation.state import nowhere
from fedstil_mpi.federation.trainer import OneByOne
from support import played, tiny


def test_what_is_asked_for_is_made_once():
    made = []
    roster = Roster([3, 1, 2], lambda client: made.append(client) or [client])
    assert (list(roster), len(roster), 2 in roster, 4 in roster) == ([3, 1, 2], 3, True, False)
    assert not made
    assert roster[2] is roster[2]
    assert roster[1] == [1]
    assert (made, roster.made()) == ([2, 1], {1: [1], 2: [2]})
    with pytest.raises(KeyError):
        roster[4]


def test_a_stream_draws_the_tasks_that_are_asked_for():
    asked = []

    class Watched(SyntheticStream):
        def task(self, client, task):
            asked.append((client, task))
            return super().task(client, task)

    tasks = TasksOnDemand(Watched(SyntheticOptions(clients=2, people_per_task=2), 1, tasks=3, height=32, width=16), 1)
    assert tasks[2].train.people.tolist() == tasks[2].query.people.tolist()
    assert (len(tasks), asked) == (3, [(1, 2)])


@pytest.mark.parametrize("gallery", ["client", "all"])
def test_clients_that_are_never_drawn_are_never_made(gallery):
    config = tiny.experiment({"evaluation.gallery": [gallery], "train.steps": 2}, "fedstil")
    schedule = schedule_of(1, 4, 3, 1, 2, 1, 1)
    drawn = {client for _, online in schedule.rounds() for client in online}
    start, made = tiny.network(), []

    def learner_of(client):
        made.append(client)
        return Learner(client, config, played.FOUR[client], start)

    plan = played.plan_of(config, schedule)
    schema = message_schema(plan.experiment, plan.method, 4, start)
    f = connect(plan, schema, Roster(range(4), learner_of), InProcessExchange(), OneByOne(nowhere))
    run_rounds(f, NoCheckpoints())
    assert len(drawn) < 4
    assert set(made) == set(f.clients.made()) == drawn
