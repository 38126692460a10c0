import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedstil_mpi.comm import codec
from fedstil_mpi.comm.flat import Layout
from fedstil_mpi.comm.ledger import DOWN, HEADER_BYTES, UP
from fedstil_mpi.config.fields import check_values
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.methods import fedweit
from fedstil_mpi.methods.base import Setup
from fedstil_mpi.methods.fedweit.bank import Bank, ReferenceCodeBank
from fedstil_mpi.methods.fedweit.method import Client
from fedstil_mpi.methods.quadratic import QuadraticSum, quadratic
from fedstil_mpi.models.masked import Masked
from fedstil_mpi.util.errors import InputError
from support import played, tiny
from support.cases import STEADY
from support.golden_files import golden

STREAMS = [
    [tiny.task(1, 2, seed=1), tiny.task(3, 4, seed=2), tiny.task(5, seed=3)],
    [tiny.task(2, 5, seed=4), tiny.task(1, 6, seed=5), tiny.task(3, 7, seed=6)],
    [tiny.task(7, 8, seed=7), tiny.task(9, 10, seed=8), tiny.task(11, seed=9)],
]
ALL = [0, 1, 2]
BATCH, SCORES = tiny.batch(1, 2), torch.zeros(2, tiny.CLASSES)
X = torch.rand(5, *tiny.SHAPE, generator=torch.Generator().manual_seed(0))
modes = pytest.mark.parametrize("mode", ["paper", "reference_code"])


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def federation(
    settings: dict | None = None, mode: str = "paper", streams: list = STREAMS, method: str = "fedweit"
) -> tiny.Federation:
    common = STEADY | {"train.steps": 2, "train.batch": 8, "rounds.per_task": 2, "memory.size": 0}
    preset = mode
    return tiny.federation(tiny.experiment(common | (settings or {}), method, preset), streams)


def play(result: tiny.Federation, first: int, last: int, online: list[int] | None = None) -> None:
    for number in range(first, last + 1):
        result.play(number, ALL[: len(result.clients)] if online is None else online)


@torch.no_grad()
def features(side: fedweit.Client, task: int) -> Tensor:
    return side.tail_for(task).eval().features(X).clone()


# -- the server --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", golden("c_average"), ids=lambda path: path.stem)
def test_golden_server(path):
    """Uploaded are how far theta is from the base and the adaptive weights; the golden bank has its slots last."""
    case = {key: torch.from_numpy(value) for key, value in np.load(path, allow_pickle=False).items()}
    clients = len(case["train_cnt"])
    layout = Layout.of({"fc.weight": case["fedweit_sw_mean"]})
    setup = Setup(clients, layout, 1, torch.randn(layout.scalars, generator=rng()))
    server = fedweit.Server(setup, fedweit.Options(mode="reference_code", knowledge=clients))
    online = list(range(clients))
    assert not server.knowledge(online)["knowledge"].any()
    theta_KP, adaptive_KP = case["fedweit_gw"].flatten(1), case["fedweit_aw"].flatten(1)
    moved = theta_KP - setup.start
    server.collect(online, {"weights": moved, "adaptive": adaptive_KP, "samples": case["train_cnt"][:, None]})
    sent = server.knowledge(online)
    torch.testing.assert_close(sent["weights"], case["fedweit_sw_mean"].flatten(), rtol=1e-4, atol=1e-5)
    expected = case["fedweit_kb"].movedim(-1, 0).flatten(1)
    assert torch.equal(expected, adaptive_KP[case["fedweit_kb_order"]])
    slots = sent["knowledge"].view(clients, -1)
    assert sorted(slots.tolist()) == sorted(expected.tolist())  # only the set matters


def test_the_reference_bank_is_drawn_again_each_round_when_it_can_be_filled():
    def banks() -> list[list[float]]:
        bank, seen = ReferenceCodeBank(3, 1, 0), []
        for number in range(20):
            online = [[0], [1], [3, 5], [2, 4]][min(number, 3)]
            bank.collect(online, torch.tensor([[100.0 * number + client] for client in online]))
            seen.append(bank.knowledge(online)["knowledge"].tolist())
        return seen

    seen = banks()
    assert seen == banks()
    assert seen[0] == seen[1] == [0.0] * 3
    for number, slots in enumerate(seen[3:], 3):
        current = {0.0, 101.0, 203.0, 205.0, 100.0 * number + 2, 100.0 * number + 4}
        assert set(slots) <= current
        assert len(set(slots)) == 3
    assert len({tuple(value % 100 for value in slots) for slots in seen[3:]}) > 5


def test_who_gets_whose_adaptive_weights_by_hand():
    bank = Bank(limit=2, scalars=1)

    def finishes(client: int, value: float) -> None:
        bank.take(client, torch.tensor([[value]]))

    def given(client: int) -> list[float]:
        return [float(adaptive) for adaptive in bank.give(client)]

    nothing = torch.empty(0, 1)
    bank.take(0, nothing)
    assert given(0) == []
    finishes(1, 1.0)
    assert given(0) == []  # in the middle of its task
    assert given(1) == []  # there is only its own
    finishes(0, 10.0)
    assert given(0) == [1.0]
    assert given(0) == []  # once per task
    finishes(2, 2.0)
    finishes(3, 3.0)
    assert given(4) == [3.0, 2.0]  # new to the server: those that were finished last
    assert given(4) == []
    finishes(1, 1.5)
    assert given(3) == [1.5, 2.0]  # the newest of each client
    assert given(1) == [3.0, 2.0]
    assert Bank(limit=0, scalars=1).give(0) == []


def test_no_client_ever_gets_its_own_or_more_than_the_limit():
    generator = np.random.default_rng(0)
    bank, given = Bank(limit=3, scalars=1), 0
    for _ in range(200):
        online = sorted(generator.choice(7, 4, replace=False).tolist())
        for client, rows in zip(online, bank.knowledge(online)["adaptive"], strict=True):
            assert client not in rows.flatten().tolist()
            assert len(rows) <= 3
            assert len(set(rows.flatten().tolist())) == len(rows)
            given += len(rows)
        bank.collect(online, [torch.full((int(generator.integers(2)), 1), float(client)) for client in online])
    assert given > 100


def test_the_bank_keeps_copies():
    bank, row = Bank(limit=2, scalars=1), torch.tensor([[1.0]])
    bank.take(0, row)
    row.fill_(math.nan)
    assert bank.give(1)[0].item() == 1.0


# -- a task's life -----------------------------------------------------------------------------------------------------


def test_a_tasks_own_parts_persist_over_its_rounds_and_are_reset_after_it():
    result = federation()
    play(result, 1, 1)
    side = result.clients[0]
    parts = {name: part.state_dict() for name, part in side.parts.items()}
    kept = {(name, key): value.clone() for name, state in parts.items() for key, value in state.items()}
    result.distribute(2, ALL)
    side.learner.begin_round()
    side.begin()
    assert all(torch.equal(side.parts[name].state_dict()[key], value) for (name, key), value in kept.items())
    assert all(part.adaptive.any() for part in side.parts.values())
    side.learner.train(2, side.penalty, side.context())
    side.end()
    side.learner.begin_round()  # of the next task
    side.begin()
    for part in side.parts.values():
        assert not part.adaptive.any()
        assert (part.mask == Masked.initial).all()


def test_others_adaptive_weights_are_the_next_tasks_bank():
    result = federation({"method.threshold": 1e-3})
    play(result, 1, 2)
    sent = [side.adaptive(prune=True) for side in result.clients]
    assert all(torch.equal(result.server.bank.newest[client], sent[client]) for client in ALL)
    result.distribute(3, ALL)
    for client, side in enumerate(result.clients):
        assert all(len(part.knowledge) == 0 for part in side.parts.values())  # until the task begins
        side.learner.begin_round()
        side.begin()
        others = [sent[other] for other in reversed(ALL) if other != client]
        bank = torch.cat([part.knowledge.flatten(1) for part in side.parts.values()], 1)
        assert torch.equal(bank, torch.stack(others))
    play(result, 4, 4)
    assert all(len(part.attention) == 2 for part in result.clients[0].parts.values())


def test_attention_to_the_bank_is_learned():
    result = federation()
    play(result, 1, 4)
    assert all(part.attention.all() for side in result.clients for part in side.parts.values())


def test_what_a_mask_closes_does_not_move_the_shared_base():
    result = federation({"method.mask_sparsity": 0.01})
    result.distribute(1, ALL)
    before = result.server.theta_P.clone()
    for client, side in enumerate(result.clients):
        side.learner.begin_round()
        side.begin()
        side.learner.untold.samples = client  # the first client has no say
        part, weight = side.parts["classifier.weight"], side.parameters["classifier.weight"]
        part.mask.data[:4] = -9.0  # closed
        part.mask.data[4:] = 0.0  # half open
        weight.data += 1.0 + client
    result.collect(1, ALL)
    moved = side.setup.layout.unpack(result.server.theta_P - before)
    assert not moved["trunk.conv.weight"].any()
    assert not moved["classifier.weight"][:4].any()
    mean = (1 * 2.0 + 2 * 3.0) / 3
    torch.testing.assert_close(moved["classifier.weight"][4:], torch.full((tiny.CLASSES - 4, 6), 0.5 * mean))


def test_with_open_masks_and_nothing_of_their_own_the_tasks_are_fedavg_step_by_step(monkeypatch):
    def restart(part: Masked, base: Tensor, knowledge: Tensor) -> None:
        for parameter in (part.mask, part.adaptive, part.attention):
            parameter.requires_grad_(False)
        part.mask.fill_(50.0)
        part.adaptive.zero_()

    monkeypatch.setattr(Masked, "restart", restart)
    monkeypatch.setattr(Client, "context", lambda side: None)  # their size would be a constant
    results = federation({"method.drift": 0.0}), federation(method="fedavg")
    for result in results:
        play(result, 1, 5)
    torch.testing.assert_close(results[0].server.theta_P, results[1].server.theta_P, rtol=0, atol=1e-6)
    assert (results[0].server.theta_P - results[0].clients[0].setup.start).abs().max() > 1e-3


# -- the reference -----------------------------------------------------------------------------------------------------


def test_every_round_of_the_reference_starts_from_theta_equal_to_the_base():
    result = federation({"method.knowledge": 2}, "reference_code")
    for number in (1, 2, 3):
        result.distribute(number, ALL)
        for side in result.clients:
            side.learner.tail.eval()
            base = side.setup.layout.unpack(result.server.theta_P)
            for name, weight in side.weights().items():
                torch.testing.assert_close(weight, base[name], rtol=0, atol=1e-6)
                layer = side.learner.tail.get_submodule(name.removesuffix(".weight"))
                torch.testing.assert_close(layer.weight, base[name], rtol=0, atol=1e-6)
        result.play(number, ALL)
    masks = torch.cat([part.mask.flatten() for part in result.clients[0].parts.values()])
    assert (masks != 0.5).all()  # what alone outlives a round
    bank = torch.cat([part.knowledge.flatten(1) for part in result.clients[0].parts.values()], 1)
    assert bank.shape == (2, side.setup.layout.scalars)
    assert bank.any()


def test_the_base_of_the_reference_is_frozen_and_theta_is_sent():
    result = federation({"method.threshold": 0.01}, "reference_code")
    result.distribute(1, ALL)
    side, before = result.clients[0], result.server.theta_P.clone()
    side.learner.begin_round()
    side.begin()
    side.learner.train(1, side.penalty, side.context())
    side.end()
    assert torch.equal(side.theta(), before)
    message = side.update()
    assert torch.equal(message["adaptive"], torch.cat([part.adaptive.flatten() for part in side.parts.values()]))
    theta = torch.cat([weight.flatten() for weight in side.weights().values()])
    torch.testing.assert_close(before + message["weights"], theta)
    assert message["weights"].abs().max() > 1e-3


# -- a model for each task ---------------------------------------------------------------------------------------------


def test_a_finished_task_changes_through_the_shared_base_only():
    result = federation({"method.mask_sparsity": 0.5, "method.threshold": 1e-3})
    play(result, 1, 1)
    side = result.clients[0]
    side.parts["trunk.conv.weight"].mask.data[:2] = -1.0  # 0.27 of the base, which is pruned
    play(result, 2, 2)
    base = side.theta()
    found = features(side, 0)
    with torch.no_grad():
        assert torch.equal(found, side.learner.tail.eval().features(X))  # it is the newest model
    play(result, 3, 5)
    assert not torch.allclose(features(side, 0), found)
    assert not torch.allclose(features(side, 0), features(side, 1))
    side.load(base)
    assert torch.equal(features(side, 0), found)
    assert side.tail_for(2) is side.learner.tail


def test_a_finished_task_of_the_reference_stays_as_it_was():
    result = federation(mode="reference_code")
    play(result, 1, 2)
    side = result.clients[0]
    with torch.no_grad():
        found = side.learner.tail.eval().features(X)
    torch.testing.assert_close(features(side, 0), found)
    found = features(side, 0)
    play(result, 3, 5)
    result.distribute(6, ALL)
    assert torch.equal(features(side, 0), found)
    assert not torch.allclose(features(side, 1), found)


@modes
def test_a_task_that_is_not_finished_has_the_newest_model(mode):
    result = federation(mode=mode)
    play(result, 1, 1)
    side = result.clients[0]
    assert all(side.tail_for(task) is side.learner.tail for task in range(3))
    play(result, 2, 6)
    assert side.tail_for(0) is not side.learner.tail
    assert side.tail_for(2) is side.learner.tail  # the last task never ends


# -- the penalty -------------------------------------------------------------------------------------------------------


@modes
def test_sparsity_is_the_size_of_mask_and_adaptive_weights(mode):
    result = federation({"method.sparsity": 0.5, "method.drift": 0.0}, mode)
    result.distribute(1, ALL)
    side = result.clients[0]
    side.learner.begin_round()
    side.begin()
    for part in side.parts.values():
        part.adaptive.data.fill_(-0.25)
        part.mask.data.fill_(-1.0)
    masks = 6 + tiny.CLASSES
    opening = 1.0 if mode == "reference_code" else 1 / (1 + math.e)
    expected = 0.5 * (0.25 * side.setup.layout.scalars + opening * masks)
    assert tiny.penalty(side, BATCH, SCORES).item() == pytest.approx(expected, rel=1e-5)


def test_drift_is_zero_at_the_end_of_a_task_and_grows_from_there():
    result = federation({"method.sparsity": 0.0, "method.drift": 2.0})
    play(result, 1, 1)
    side = result.clients[0]
    side.parameters["classifier.weight"].data += 5.0
    assert tiny.penalty(side, BATCH, SCORES).item() == 0  # no task has ended
    play(result, 2, 2)
    assert tiny.penalty(side, BATCH, SCORES).item() == 0
    gate = side.parts["classifier.weight"].gate(prune=True).detach().clone()
    side.parameters["classifier.weight"].data += 0.25
    expected = 2.0 * 6 * (gate**2).sum() * 0.25**2
    assert tiny.penalty(side, BATCH, SCORES).item() == pytest.approx(expected.item(), rel=1e-4)
    side.parts["classifier.weight"].mask.data.zero_()  # the new task's mask has no part in it
    assert tiny.penalty(side, BATCH, SCORES).item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_reference_has_no_drift():
    result = federation({"method.sparsity": 0.0, "method.drift": 1e6}, "reference_code")
    play(result, 1, 4)
    assert tiny.penalty(result.clients[0], BATCH, SCORES).item() == 0


def test_drift_from_several_tasks_is_the_sum_up_to_a_constant():
    generator = rng(1)
    bases = [torch.randn(4, 3, 2, generator=generator, dtype=torch.float64) for _ in range(5)]
    gates = [torch.rand(4, 1, 1, generator=generator, dtype=torch.float64) for _ in range(3)]
    for gate in gates:
        gate[0] = 0.0  # a channel that no task uses
    drift = QuadraticSum()
    for base, gate in zip(bases, gates, strict=False):
        drift.add({"base": base}, {"base": gate**2})

    def held(base: Tensor) -> Tensor:
        return quadratic({"base": base}, drift.weighted(1.0))

    def explicit(base: Tensor) -> Tensor:
        return sum(((base - past) * gate).square().sum() for past, gate in zip(bases, gates, strict=False))

    one, other = bases[3:]
    torch.testing.assert_close(held(one) - held(other), explicit(one) - explicit(other))
    one.requires_grad_()
    gradients = [torch.autograd.grad(penalty(one), one)[0] for penalty in (held, explicit)]
    torch.testing.assert_close(*gradients)


def test_drift_keeps_the_base_where_past_tasks_had_it():
    def moved(drift: float) -> float:
        result = federation({"method.drift": drift, "train.steps": 10, "train.weight_decay": 0.0})
        play(result, 1, 2)
        side, before = result.clients[0], result.clients[0].theta()
        side.learner.begin_round()
        side.begin()
        side.learner.train(3, side.penalty, side.context())
        return (side.theta() - before).abs().mean().item()

    assert moved(1e4) < 0.5 * moved(0.0)


# -- traffic -----------------------------------------------------------------------------------------------------------


def test_a_run_by_hand():
    """Three clients, two tasks of two rounds; the second task's weights are never sent, as it does not end."""
    plan = Schedule(1, clients=3, tasks=2, per_task=2, total=4, clients_per_round=3, evaluate_every=1)
    config = tiny.experiment({"rounds.per_task": 2, "memory.size": 0}, "fedweit")
    f = played.count(config, [[tiny.task(1), tiny.task(2)]] * 3, plan)
    booked, base = f.exchange.ledger, f.traffic.down[0].itemsize
    assert [booked.total(UP, r, 0) - 8 - HEADER_BYTES for r in (1, 2, 3, 4)] == [base, 2 * base, base, base]
    assert [booked.total(DOWN, r, 0) - HEADER_BYTES for r in (2, 3, 4, 5)] == [base, 3 * base, base, base]


def test_what_is_pruned_is_not_sent():
    result = federation({"method.sparsity": 0.3, "method.threshold": 1.5e-3})
    play(result, 1, 1)
    result.distribute(2, ALL)
    side = result.clients[0]
    side.learner.begin_round()
    side.begin()
    side.learner.train(2, side.penalty, side.context())
    side.end()
    adaptive = side.update()["adaptive"]
    part = next(part for part in result.traffic.up if part.kind == "adaptive")
    places = int(adaptive.count_nonzero())
    assert 0 < places < 0.5 * adaptive.numel()
    assert adaptive[adaptive != 0].abs().min() > 1.5e-3
    written = codec.encode(part, adaptive)
    assert written.numel() == 8 + 8 * places < 4 * adaptive.numel()
    assert torch.equal(codec.decode(part, written), adaptive)


# -- whole federations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", sorted(fedweit.PRESETS))
def test_every_preset_can_be_played_with_a_late_joiner(preset):
    settings = STEADY | {"train.steps": 3, "rounds.per_task": 2, "train.batch": 8}
    if preset == "best":
        settings["memory.size"] = 8
    result = tiny.federation(tiny.experiment(settings, "fedweit", preset), STREAMS)
    for number, online in enumerate([[0, 1], [0, 1], [0, 1, 2], [1, 2], ALL, ALL, ALL], 1):
        result.play(number, online)
        if number == 3 and preset != "reference_code":
            assert len(result.clients[2].parts["classifier.weight"].attention) == 2  # at once, of both others
    result.distribute(8, ALL)
    for side in result.clients:
        assert all(value.isfinite().all() for value in side.learner.tail.state_dict().values())
        assert np.isfinite(tiny.search(side.learner, side.tail_for)[: side.learner.task + 1]).all()
        assert np.isfinite(tiny.search(side.learner)[: side.learner.task + 1]).all()
        assert side.task_aware


@modes
def test_one_client_alone(mode):
    result = federation(mode=mode, streams=STREAMS[:1])
    play(result, 1, 6)
    result.distribute(7, [0])
    side = result.clients[0]
    torch.testing.assert_close(side.theta(), result.server.theta_P)
    slots = 5 if mode == "reference_code" else 0
    assert all(part.knowledge.shape[0] == slots and not part.knowledge.any() for part in side.parts.values())
    assert np.isfinite(tiny.search(side.learner, side.tail_for)).all()


def test_biases_are_a_tasks_own():
    """With a plain neck the classifier has a bias, which is not decomposed."""
    settings = {"train.steps": 2, "rounds.per_task": 1, "memory.size": 0}
    result = tiny.federation(tiny.experiment(settings, "fedweit"), STREAMS, tiny.network(neck="plain"))
    play(result, 1, 1)
    side = result.clients[0]
    bias = side.learner.tail.classifier.bias.detach().clone()
    norm = side.learner.tail.state_dict()["trunk.norm.running_mean"].clone()
    play(result, 2, 3)
    assert not torch.equal(side.learner.tail.classifier.bias, bias)
    assert torch.equal(side.tail_for(0).classifier.bias, bias)
    assert torch.equal(side.tail_for(0).state_dict()["trunk.norm.running_mean"], norm)
    assert type(side.tail_for(0).classifier) is nn.Linear


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "published"}, "expected one of paper, reference_code"),
        ({"sparsity": -1.0}, "method.sparsity = -1.0; expected between 0 and 1e"),
        ({"threshold": math.nan}, "method.threshold = nan"),
        ({"drift": -1e-9}, "method.drift"),
        ({"mode": "reference_code", "knowledge": 0}, "method.knowledge = 0; expected at least 1"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        check_values(fedweit.Options(**options), "method.")
