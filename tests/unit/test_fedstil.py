import numpy as np
import pytest
import torch
from torch import Tensor

from fedstil_mpi.comm.flat import Layout
from fedstil_mpi.config.fields import check_values
from fedstil_mpi.methods import fedstil
from fedstil_mpi.methods.base import Setup
from fedstil_mpi.methods.fedstil.relevance import MEASURES
from fedstil_mpi.models.adaptive import parts
from fedstil_mpi.util.errors import InputError
from support import tiny
from support.cases import STEADY
from support.golden_files import golden

STREAMS = [
    [tiny.task(1, 2, seed=1), tiny.task(3, 4, seed=2)],
    [tiny.task(2, 5, seed=3), tiny.task(1, 6, seed=4)],
    [tiny.task(7, 8, seed=5), tiny.task(9, 10, seed=6)],
]
ALL = [0, 1, 2]
BATCH, SCORES = tiny.batch(1, 2), torch.zeros(2, tiny.CLASSES)


def federation(settings: dict | None = None, preset: str = "paper", method: str = "fedstil") -> tiny.Federation:
    common = {"train.steps": 2, "train.batch": 8, "rounds.per_task": 2, "memory.size": 6, "memory.share": 0.5}
    steady = STEADY | {"prototypes.exchange": False}
    return tiny.federation(tiny.experiment(common | steady | (settings or {}), method, preset), STREAMS)


def played(rounds: int, settings: dict | None = None, preset: str = "paper", method: str = "fedstil") -> Tensor:
    """The clients' travelling weights [K, P] after these rounds and a closing distribution."""
    result = federation(settings, preset, method)
    for number in range(1, rounds + 1):
        result.play(number, ALL)
    result.distribute(rounds + 1, ALL)
    return torch.stack([side.theta() for side in result.clients])


# -- the server --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", golden("b_dispatch"), ids=lambda path: path.stem)
def test_golden_dispatch(path):
    case = {key: torch.from_numpy(value) for key, value in np.load(path, allow_pickle=False).items()}
    theta = {"conv": case["theta_conv"], "fc": case["theta_fc"]}
    clients, uploads, length = case["tokens"].shape
    layout = Layout.of({name: value[0] for name, value in theta.items()})
    options = fedstil.Options(
        relevance="reference_code",
        decomposition="reference_code",
        step=int(case["step"]),
        forgetting=float(case["decay"]),
    )
    server = fedstil.Server(Setup(clients, layout, length, torch.zeros(layout.scalars)), options)
    sent = torch.cat([value.flatten(1) for value in theta.values()], 1)
    for upload in range(uploads):
        online = torch.nonzero(case["lengths"] > upload)[:, 0].tolist()
        # Only the last upload counts: before it the clients say other things.
        deltas = [sent[client] / case["lengths"][client] for client in online]
        server.collect(online, {"weights": torch.stack(deltas), "token": case["tokens"][online, upload]})
    base_KP = server.knowledge(list(range(clients)))["weights"]
    torch.testing.assert_close(server.relevance_OK.sum(1), torch.ones(clients))
    for client in range(clients):
        for name, value in layout.unpack(base_KP[client]).items():
            torch.testing.assert_close(value, case[f"dispatched_{name}"][client], rtol=1e-4, atol=1e-5)


def server_after(relevance: str, uploads: list[list[int]], **options) -> fedstil.Server:
    """A server of four clients that got updates of these online clients in successive rounds, with random weights."""
    generator, prototypes = torch.Generator().manual_seed(5), torch.Generator().manual_seed(6)
    layout = Layout.of({"w": torch.empty(6)})
    server = fedstil.Server(Setup(4, layout, 8, torch.zeros(6)), fedstil.Options(relevance=relevance, **options))
    for number, online in enumerate(uploads):
        people = [torch.tensor([[number], [10 * client], [10 * client + number]]) for client in online]
        people = people if number % 2 == 0 else [ids[:0] for ids in people]
        updates = {
            "weights": torch.randn(len(online), 6, generator=generator),
            "token": torch.rand(len(online), 8, generator=generator),
            "header": torch.full((len(online), 1), number // 2),
            "prototypes": [torch.rand(len(ids), 8, generator=prototypes) for ids in people],
            "people": people,
        }
        server.collect(online, updates)
    return server


@pytest.mark.parametrize("relevance", [*MEASURES, "reference_code"])
def test_rows_of_the_mixing_matrix_sum_to_1_whichever_clients_were_seen(relevance):
    for uploads in ([[0, 1, 2, 3]] * 4, [[1, 2]], [[3]], [[0, 3], [1], [0, 1], [3]]):
        server = server_after(relevance, uploads)
        weights = server.attention.rows(range(4))
        seen_clients = sorted(set().union(*uploads))
        unseen = [client for client in range(4) if client not in seen_clients]
        torch.testing.assert_close(weights.sum(1), torch.ones(4))
        assert (weights[:, unseen] == 0).all()
        assert torch.equal(server.attention.rows(range(4)), weights)
        if len(seen_clients) == 1:
            assert (weights[:, seen_clients[0]] == 1).all()


def test_own_weight():
    assert server_after("uniform", [[0, 1, 2, 3]]).attention.rows(range(4)).diagonal().tolist() == [0.25] * 4
    own = server_after("uniform", [[0, 1, 2]], self_weight=0.4).attention.rows(range(4)).diagonal()
    torch.testing.assert_close(own, torch.tensor([0.4, 0.4, 0.4, 0.0]))
    assert torch.equal(
        server_after("uniform", [[0, 1, 2]], self_weight=1.0).attention.rows(range(4))[:3, :3], torch.eye(3)
    )


@pytest.mark.parametrize(
    ("relevance", "tasks"), [("overlap", 2), ("token_js", 2), ("uniform", 1), ("reference_code", 1)]
)
def test_history_of_tasks(relevance, tasks):
    """Four rounds, two a task; measures that read tasks distinguish them, and the newest token is the task's."""
    history = server_after(relevance, [[0, 1, 2, 3]] * 4).attention.history
    assert [len(of_client) for of_client in history.tasks] == [tasks] * 4
    if relevance == "overlap":
        assert history.tasks[2][1].people == {2, 20, 22}
    if relevance == "token_js":
        tokens = server_after("reference_code", [[0, 1, 2, 3]] * 4).attention.history.uploads[1]  # the same, all kept
        assert [torch.equal(task.token, tokens[i]) for task, i in zip(history.tasks[1], (1, 3), strict=True)] == [
            True
        ] * 2


def test_server_memory_is_a_running_mean_of_each_clients_weights():
    """Clients 0 and 1 upload three times, client 2 once, client 3 never."""
    uploads = [[0, 1], [0, 1, 2], [0, 1]]
    thetas = [server_after("uniform", uploads[:number]).theta.of(range(4)) for number in (1, 2, 3)]
    mixed = server_after("uniform", uploads, server_memory=0.75).mixed.of(range(4))
    by_hand = 0.75 * (0.75 * thetas[0] + 0.25 * thetas[1]) + 0.25 * thetas[2]
    torch.testing.assert_close(mixed[:2], by_hand[:2])
    torch.testing.assert_close(mixed[2:], thetas[2][2:])  # a first upload has no past
    server = server_after("uniform", uploads, server_memory=0.75)
    base_KP = server.knowledge([0, 1, 2, 3])["weights"]
    torch.testing.assert_close(base_KP, server.relevance_OK @ mixed)


def test_without_a_memory_the_server_mixes_what_is_newest():
    server = server_after("uniform", [[0, 1, 2, 3], [0, 2]])
    assert server.mixed is server.theta


def test_knowledge_is_the_mix_of_what_both_ends_know():
    result = federation()
    result.play(1, ALL)
    theta_KP = torch.stack([side.theta() for side in result.clients])
    base_KP = result.server.knowledge(ALL)["weights"]
    torch.testing.assert_close(base_KP, result.server.relevance_OK @ theta_KP)


# -- receiving a base --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.8, 1.0])
def test_a_client_moves_by_alpha_to_its_base(alpha):
    result = federation({"method.alpha": alpha})
    result.play(1, ALL)
    side = result.clients[1]
    theta, base = side.theta(), torch.randn(side.setup.layout.scalars, generator=torch.Generator().manual_seed(1))
    side.absorb({"weights": base})
    torch.testing.assert_close(side.theta(), theta + alpha * (base - theta))
    if alpha == 1:
        assert torch.equal(side.theta(), base)
    assert torch.equal(side.start, side.theta())


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
def test_reference_clients_are_reset_to_their_base(alpha):
    result = federation({"method.alpha": alpha, "method.decomposition": "reference_code"})
    result.play(1, ALL)
    result.play(2, ALL)
    side = result.clients[0]
    base = torch.randn(side.setup.layout.scalars, generator=torch.Generator().manual_seed(1))
    side.absorb({"weights": base})
    torch.testing.assert_close(side.theta(), base, rtol=0, atol=1e-6)


@pytest.mark.parametrize("decomposition", ["folded", "reference_code"])
def test_a_late_joiner_takes_its_base_whole(decomposition):
    result = federation({"method.alpha": 0.6, "method.decomposition": decomposition})
    result.play(1, [0, 1])
    trained = torch.stack([side.theta() for side in result.clients[:2]])
    result.distribute(2, [2])
    late = result.clients[2].theta()
    torch.testing.assert_close(late, trained.mean(0))  # of the others, as nothing is known of it
    assert torch.equal(late, result.server.theta[2])


def test_the_start_model_is_the_first_base_of_a_reference_client():
    result = federation(preset="reference_code")
    result.distribute(1, ALL)
    start = tiny.network().tail
    x = torch.rand(5, *tiny.SHAPE, generator=torch.Generator().manual_seed(0))
    for side in result.clients:
        assert tiny.penalty(side, BATCH, SCORES).item() == 0
        torch.testing.assert_close(side.learner.tail.eval()(x)[0], start.eval()(x)[0])


# -- training ----------------------------------------------------------------------------------------------------------


def test_alpha_does_not_matter_to_the_reference_code_without_weight_decay():
    settings = {"train.weight_decay": 0.0, "method.decomposition": "reference_code", "method.tying": 0.0}
    one, other = (played(3, settings | {"method.alpha": alpha}) for alpha in (0.9, 0.4))
    alike = (one - other).abs() < 2e-5
    # Not all: Adam's steps are as long for a gradient near 0, whichever sign rounding gives it.
    assert alike.float().mean() > 0.99
    decay = settings | {"train.weight_decay": 0.1}
    one, other = (played(3, decay | {"method.alpha": alpha}) for alpha in (0.9, 0.4))
    assert (one - other).abs().max() > 1e-3  # it pulls A to 0, not theta


def test_alpha_matters_when_local_adaptation_survives():
    settings = {"train.weight_decay": 0.0, "method.tying": 0.0}
    one, other = (played(3, settings | {"method.alpha": alpha}) for alpha in (0.9, 0.4))
    assert (one - other).abs().max() > 1e-3


def test_uniform_relevance_and_alpha_1_is_fedavg_step_by_step():
    settings = {"method.relevance": "uniform", "method.alpha": 1.0, "method.tying": 0.0}
    aids = {"train.softmax": "known"}
    for rounds in (1, 2, 4):
        mixed = played(rounds, settings | aids)
        averaged = played(rounds, {"method.norms": "local"} | aids, "best", "fedavg")
        torch.testing.assert_close(mixed, averaged, rtol=0, atol=2e-5)
        assert torch.equal(averaged[0], averaged[1])
    assert (played(4, settings | aids | {"method.alpha": 0.7}) - averaged).abs().max() > 1e-3


def test_no_tying_is_no_penalty():
    for preset in ("best", "reference_code"):
        result = federation({"method.tying": 0.0}, preset)
        result.play(1, ALL)
        assert tiny.penalty(result.clients[0], BATCH, SCORES) is None


def test_tying_is_the_distance_from_where_the_round_began():
    result = federation({"method.tying": 0.5, "method.alpha": 0.7})
    result.play(1, ALL)
    result.distribute(2, ALL)
    side = result.clients[0]
    assert tiny.penalty(side, BATCH, SCORES).item() == 0
    side.learner.tail.classifier.weight.data += 0.25
    side.learner.tail.get_parameter("trunk.conv.weight").data[0, 0, 0] -= 2
    moved = 0.25 * side.learner.tail.classifier.weight.numel() + 2 * 3
    assert tiny.penalty(side, BATCH, SCORES).item() == pytest.approx(0.5 * moved, rel=1e-5)
    side.learner.tail.zero_grad()
    tiny.penalty(side, BATCH, SCORES).backward()
    assert torch.equal(side.learner.tail.classifier.weight.grad, torch.full((tiny.CLASSES, 6), 0.5))
    result.collect(2, ALL)
    result.distribute(3, ALL)
    assert tiny.penalty(side, BATCH, SCORES).item() == 0  # a new round, a new anchor


def test_reference_anchors_follow_and_fixed_ones_do_not():
    result = federation({"method.tying": 1e-2}, "reference_code")
    result.play(1, ALL)
    result.distribute(2, ALL)
    side = result.clients[0]
    part, adaptive = parts(side.learner.tail.classifier)
    anchor = part.anchor.detach().clone()
    adaptive.data += 0.1
    side.learner.begin_round()
    side.learner.train(2, side.penalty, side.context())
    assert ((part.anchor - anchor) > 1e-4).all()


def test_tying_keeps_clients_near_their_base():
    def moved(tying: float) -> float:
        result = federation({"method.tying": tying, "train.steps": 20, "train.weight_decay": 0.0})
        result.play(1, ALL)
        return max((side.theta() - side.setup.start).abs().max().item() for side in result.clients)

    assert moved(10.0) < 0.3 * moved(0.0)


# -- without the server's mixing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tying", [0.0, 1.0])
@pytest.mark.parametrize("decomposition", ["folded", "reference_code"])
def test_without_mixing_nothing_travels(decomposition, tying):
    settings = {"method.relevance": "none", "method.decomposition": decomposition, "method.tying": tying}
    result = federation(settings)
    for number, online in enumerate([[0, 1], ALL, [2], ALL], 1):
        result.play(number, online)
    result.distribute(5, ALL)
    assert result.ledger.entries == []
    assert result.server.relevance_OK is None
    assert len({side.learner.fingerprint() for side in result.clients}) == 3


@pytest.mark.parametrize("alpha", [0.0, 0.9])
def test_without_mixing_and_tying_it_is_learning_alone_to_the_last_bit(alpha):
    settings = {"method.relevance": "none", "method.alpha": alpha, "method.tying": 0.0}
    alone, single = federation(settings), federation({"train.softmax": "all"}, method="single")
    for number, online in enumerate([ALL, [0, 2], ALL, ALL], 1):
        for result in (alone, single):
            result.play(number, online)
        for side, other in zip(alone.clients, single.clients, strict=True):
            assert side.learner.fingerprint() == other.learner.fingerprint()


def test_without_mixing_clients_are_tied_to_where_their_round_began():
    result = federation({"method.relevance": "none", "method.tying": 0.5})
    side = result.clients[0]
    for number in (1, 2):
        result.distribute(number, ALL)
        start = side.theta()
        assert tiny.penalty(side, BATCH, SCORES).item() == 0
        side.learner.begin_round()
        side.learner.train(number, side.penalty, side.context())
        moved = (side.theta() - start).abs().sum().item()
        assert moved > 0.01
        assert tiny.penalty(side, BATCH, SCORES).item() == pytest.approx(0.5 * moved, rel=1e-4)


def test_prototypes_travel_without_mixing():
    """Each client's first task has two people; client 1 meets person 2 of client 0, and the reverse."""
    result = federation({"method.relevance": "none", "prototypes.exchange": True})
    result.play(1, ALL)
    result.distribute(2, ALL)
    assert {kind for _, kind in result.ledger.by_kind()} == {"people", "prototypes", "header"}
    assert [len(side.learner.relayed) for side in result.clients] == [1, 1, 0]


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [({"relevance": "overlapp"}, "expected one of .*overlap"), ({"decomposition": "fold"}, "expected one of folded")],
)
def test_unknown_choices_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        check_values(fedstil.Options(**options), "method.")
