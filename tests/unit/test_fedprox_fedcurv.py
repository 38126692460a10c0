from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fedstil_mpi.comm.flat import Layout
from fedstil_mpi.comm.ledger import DOWN, UP
from fedstil_mpi.config.fields import check_values
from fedstil_mpi.federation.observer import Observer
from fedstil_mpi.federation.rounds import NoCheckpoints, run_rounds
from fedstil_mpi.federation.schedule import plan as schedule_of
from fedstil_mpi.methods import fedcurv, fedprox
from fedstil_mpi.methods.aids import innermost
from fedstil_mpi.methods.base import Setup
from fedstil_mpi.methods.fedcurv import IMPORTANCE
from fedstil_mpi.methods.pending_updates import PendingUpdates
from fedstil_mpi.util.errors import InputError
from support import played, tiny

STREAMS = [
    [tiny.task(1, 2, seed=1), tiny.task(3, 4, seed=2)],
    [tiny.task(2, 5, seed=3), tiny.task(1, 6, seed=4)],
    [tiny.task(7, 8, seed=5), tiny.task(9, 10, seed=6)],
]
ALL = [0, 1, 2]
BATCH, SCORES = tiny.batch(1, 2), torch.zeros(2, tiny.CLASSES)
LISTS = {"method.importance": "round", "method.data": "query", "method.dispatch": "lists"}


def federation(method: str, settings: dict | None = None, preset: str = "best", query: bool = False) -> tiny.Federation:
    """Two rounds a task. Without `query` there are no query images that could be read."""
    common = {"rounds.per_task": 2, "train.batch": 8}
    common |= {"train.epochs": 2} if preset == "reference_code" else {"train.steps": 3, "memory.size": 6}
    streams = [[task if query else replace(task, query=None) for task in tasks] for tasks in STREAMS]
    return tiny.federation(tiny.experiment(common | (settings or {}), method, preset), streams)


def after(rounds: int, *arguments, **keywords) -> tiny.Federation:
    result = federation(*arguments, **keywords)
    for number in range(1, rounds + 1):
        result.play(number, ALL)
    return result


@pytest.mark.parametrize("settings", [{}, {"compression.down": "int4"}, {"rounds.exchange_every": 2}])
def test_with_lists_the_server_pulls_towards_what_each_client_learned(settings):
    """Whatever it started from: weights that a codec has rounded, or those of some rounds ago."""
    options = {"train.steps": 2, "train.batch": 8, "rounds.per_task": 2, "memory.size": 6} | LISTS | settings
    config = tiny.experiment(options | {"method.data": "train"}, "fedcurv")
    schedule = schedule_of(3, 4, 3, 2, 8, 2, 99, exchange_every=config.rounds.exchange_every)
    f = played.federation(config, played.FOUR, schedule)
    f.observer = ends = Pulls(f)
    run_rounds(f, NoCheckpoints())
    assert ends.compared > 4


class Pulls(Observer):
    def __init__(self, f):
        self.f, self.compared = f, 0

    def end_round(self, round, online):
        for client in self.f.schedule.senders(round):
            importance, pull = innermost(self.f.server).sums_K2P[client]
            own = innermost(self.f.clients[client]).sums["own"]
            held = importance > 1e-12
            torch.testing.assert_close((pull / importance)[held], (own[1] / own[0])[held], rtol=0, atol=1e-6)
            self.compared += 1


def receive(result: tiny.Federation, round: int, online: list[int] = ALL) -> None:
    """What happens up to training."""
    result.distribute(round, online)
    for client in online:
        result.clients[client].learner.begin_round()
        result.clients[client].begin()


def fingerprints(result: tiny.Federation) -> list[str]:
    return [side.learner.fingerprint() for side in result.clients]


def gradient(side) -> Tensor:
    """The penalty's gradient, [P]."""
    gradients = torch.autograd.grad(tiny.penalty(side, BATCH, SCORES), list(side.parameters.values()))
    return torch.cat([g.flatten() for g in gradients])


def shift(side, seed: int = 0) -> None:
    """Move the travelling weights a little."""
    theta = side.theta()
    side.load(theta + 0.1 * torch.randn(len(theta), generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize(("method", "key"), [("fedprox", "mu"), ("fedcurv", "penalty")])
@pytest.mark.parametrize(("preset", "norms"), [("best", "local"), ("paper", "averaged")])
def test_without_a_penalty_it_is_fedavg(method, key, preset, norms):
    def played(method: str, settings: dict) -> list[str]:
        result = after(4, method, {"method.norms": norms} | settings, preset)
        result.distribute(5, ALL)
        return fingerprints(result)

    plain = played("fedavg", {})
    assert played(method, {f"method.{key}": 0.0}) == plain
    assert played(method, {f"method.{key}": 1.0}) != plain


# -- FedProx -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norms", ["local", "averaged"])
def test_the_proximal_term_pulls_to_the_model_received(norms):
    result = after(1, "fedprox", {"method.mu": 3.0, "method.norms": norms})
    receive(result, 2)
    for side in result.clients:
        assert tiny.penalty(side, BATCH, SCORES).item() == 0
        shift(side)
        moved = side.theta() - result.server.theta_P
        assert tiny.penalty(side, BATCH, SCORES).item() == pytest.approx(1.5 * moved.square().sum().item(), rel=1e-4)
        torch.testing.assert_close(gradient(side), 3 * moved)


def test_in_the_first_round_the_start_model_is_the_anchor():
    for anchor in ("global", "previous"):
        result = federation("fedprox", {"method.anchor": anchor, "method.mu": 2.0})
        receive(result, 1)
        shift(result.clients[0])
        moved = result.clients[0].theta() - result.clients[0].setup.start
        torch.testing.assert_close(gradient(result.clients[0]), 2 * moved)


def test_reference_fedprox_pulls_to_the_weights_before_the_exchange():
    result = after(1, "fedprox", {"method.mu": 3.0}, "reference_code")
    before = [side.theta() for side in result.clients]
    receive(result, 2)
    for side, own in zip(result.clients, before, strict=True):
        assert not torch.equal(side.theta(), own)
        torch.testing.assert_close(gradient(side), 3 * (side.theta() - own))


@pytest.mark.parametrize("anchor", ["global", "previous"])
def test_a_late_joiner_is_pulled_to_the_model_received(anchor):
    result = federation("fedprox", {"method.anchor": anchor})
    result.play(1, [0, 1])
    shift(result.clients[2])  # whatever it holds
    receive(result, 2, [2])
    assert tiny.penalty(result.clients[2], BATCH, SCORES).item() == 0


def test_a_stronger_pull_keeps_clients_nearer():
    def moved(mu: float) -> float:
        result = after(1, "fedprox", {"method.mu": mu})
        result.distribute(2, ALL)
        start = result.clients[0].start
        result.clients[0].learner.begin_round()
        result.clients[0].learner.train(2, result.clients[0].penalty, result.clients[0].context())
        return (result.clients[0].theta() - start).norm().item()

    assert moved(1e3) < 0.9 * moved(0.0)


def test_fedprox_options():
    for key, value in (("mu", -1e-9), ("mu", float("nan")), ("anchor", "local")):
        with pytest.raises(InputError, match=f"^method.{key} = .*expected "):
            check_values(fedprox.Options(**{key: value}), "method.")


# -- FedCurv: what holds a client --------------------------------------------------------------------------------------


def held_by(client: int, importances: list[Tensor], anchors: list[Tensor], theta: Tensor, others: list[int]) -> Tensor:
    """Gradient of the penalty by its definition, for lambda = 50."""
    return sum(100 * importances[j] * (theta - anchors[j]) for j in [client, *others])


def test_a_client_is_held_by_itself_and_by_each_of_the_others():
    result = after(2, "fedcurv", {"method.penalty": 50.0})
    importances = [side.sums["own"][0] for side in result.clients]
    anchors = [side.theta() for side in result.clients]
    receive(result, 3)
    for client, side in enumerate(result.clients):
        assert importances[client].any()
        shift(side, client)
        expected = held_by(client, importances, anchors, side.theta(), [j for j in ALL if j != client])
        torch.testing.assert_close(gradient(side), expected, rtol=1e-3, atol=1e-5)


def test_sums_and_lists_hold_a_client_alike():
    """But for its own term, which the lists bring once more."""
    settings = {"method.importance": "round", "method.penalty": 50.0}
    result = {dispatch: after(1, "fedcurv", settings | {"method.dispatch": dispatch}) for dispatch in ("sums", "lists")}
    importances = [side.sums["own"][0] for side in result["lists"].clients]
    anchors = [side.theta() for side in result["lists"].clients]
    for federation in result.values():
        receive(federation, 2)
    for client in ALL:
        sums, lists = (result[dispatch].clients[client] for dispatch in ("sums", "lists"))
        assert torch.equal(sums.theta(), lists.theta())
        for side in (sums, lists):
            shift(side, client)
        expected = held_by(client, importances, anchors, sums.theta(), [j for j in ALL if j != client])
        torch.testing.assert_close(gradient(sums), expected, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(
            gradient(lists), held_by(client, importances, anchors, sums.theta(), ALL), rtol=1e-3, atol=1e-5
        )


def test_a_client_without_others_is_held_where_its_newest_task_ended():
    stream = [tiny.task(1, 2, seed=1), tiny.task(3, 4, seed=2), tiny.task(5, 6, seed=3)]
    settings = {"rounds.per_task": 1, "train.steps": 3, "method.penalty": 50.0}
    result = tiny.federation(tiny.experiment(settings, "fedcurv"), [stream])
    (side,) = result.clients
    for number in (1, 2):
        result.play(number, [0])
        importance, anchor = side.sums["own"][0], side.theta()
        receive(result, number + 1, [0])
        shift(side)
        torch.testing.assert_close(gradient(side), 100 * importance * (side.theta() - anchor), rtol=1e-3, atol=1e-5)
        side.load(anchor)
        side.learner.draws -= 1


def test_in_the_first_task_nothing_holds_a_client():
    settings = {"method.penalty": 1e6}
    result = after(1, "fedcurv", settings)
    receive(result, 2)
    assert all(tiny.penalty(side, BATCH, SCORES) is None for side in result.clients)
    assert fingerprints(after(2, "fedcurv", settings)) == fingerprints(after(2, "fedavg"))


def test_importances_of_a_clients_tasks_add_up():
    result = after(2, "fedcurv", {"rounds.per_task": 1})  # the last task never ends
    longer = federation("fedcurv", {"rounds.per_task": 1})
    side = longer.clients[0]
    longer.play(1, ALL)
    first = side.sums["own"].clone()
    assert torch.equal(result.clients[0].sums["own"], first)
    side.end()  # as if the same task had ended again: the same importance once more, the anchor where it stands
    torch.testing.assert_close(side.sums["own"][0], 2 * first[0], rtol=1e-3, atol=1e-9)
    assert torch.equal(side.sums["own"][1], side.sums["own"][0] * side.theta())


def test_centre_by_hand():
    sums = fedcurv.pulled(torch.tensor([1.0, 0.0, 2.0]), torch.tensor([4.0, 9.0, 1.0]))
    sums += fedcurv.pulled(torch.tensor([3.0, 0.0, 0.0]), torch.tensor([0.0, 9.0, 7.0]))
    assert fedcurv.centre(sums).tolist() == [1.0, 0.0, 1.0]


def test_lists_need_an_importance_of_every_round():
    assert fedcurv.Options(importance="round", dispatch="lists").dispatch == "lists"
    for options in ({"dispatch": "lists"}, {"dispatch": "mean"}):
        with pytest.raises(InputError, match=r"^method\.dispatch = .*expected (one of )?sums"):
            check_values(fedcurv.Options(**options), "method.")


# -- FedCurv: what travels ---------------------------------------------------------------------------------------------


def test_pending_updates_by_hand():
    pending = PendingUpdates(3)
    assert not any(pending.take(client) for client in ALL)
    pending.mark(1)
    assert [pending.take(client) for client in (0, 1)] == [True, False]
    assert not pending.take(0)  # it has it already
    pending.mark(0)
    assert [pending.take(client) for client in ALL] == [False, True, True]
    assert not any(pending.take(client) for client in ALL)


def test_the_server_sends_the_sum_over_the_others_once():
    setup = Setup(4, Layout.of({"w": torch.empty(5)}), 1, torch.zeros(5))
    server = fedcurv.Server(setup, fedcurv.Options())
    sums = torch.randn(4, 1, 10, generator=torch.Generator().manual_seed(1))

    def collect(online: list[int], senders: list[int]) -> None:
        items = [sums[client] if client in senders else sums[client, :0] for client in online]
        ones = torch.ones(len(online), 1)
        server.collect(online, {"weights": torch.zeros(len(online), 5), "samples": ones, IMPORTANCE: items})

    def sent(online: list[int]) -> list[Tensor]:
        return server.knowledge(online)[IMPORTANCE]

    assert [len(item) for item in sent([0, 1])] == [0, 0]
    collect([0, 1, 2], [0, 2])
    received = sent([0, 1])
    assert torch.equal(received[0], sums[2])
    assert torch.equal(received[1], sums[0] + sums[2])
    assert [len(item) for item in sent([0, 1])] == [0, 0]
    collect([0, 1], [0])  # client 0 sends new sums, which it does not get back
    earlier = sums[2].clone()
    sums += 1
    collect([0], [0])
    received = sent([0, 1, 2, 3])
    assert len(received[0]) == 0
    assert torch.equal(received[1], sums[0] + earlier)
    assert torch.equal(received[2], sums[0])
    assert torch.equal(received[3], received[1])  # client 3 joins late


def test_sums_travel_once_a_task():
    result = after(4, "fedcurv")
    result.distribute(5, ALL)
    sums = 2 * 4 * result.clients[0].setup.layout.scalars
    booked = [entry for entry in result.ledger.entries if entry.kind == IMPORTANCE]
    assert {(e.round, e.direction) for e in booked} == {
        (2, UP),
        (3, DOWN),
    }  # the second task is the last, and never ends
    assert [entry.raw for entry in booked] == [sums] * 6
