import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, register_parametrization

from fedstil_mpi.config.fields import check_values
from fedstil_mpi.methods import fedstil_atten
from fedstil_mpi.models.adaptive import AttentiveAdaptive
from fedstil_mpi.models.network import trainable_parameters
from fedstil_mpi.util import seeding
from fedstil_mpi.util.errors import InputError
from support import tiny

STREAMS = [
    [tiny.task(1, 2, seed=1), tiny.task(3, 4, seed=2)],
    [tiny.task(2, 5, seed=3), tiny.task(1, 6, seed=4)],
    [tiny.task(7, 8, seed=5), tiny.task(9, 10, seed=6)],
]
ALL = [0, 1, 2]
PERSIST = {"method.reset": "persist", "method.attention": 0.0}
resets = pytest.mark.parametrize("reset", [{}, PERSIST], ids=["contract", "persist"])


def federation(settings: dict | None = None, method: str = "fedstil_atten", streams=STREAMS) -> tiny.Federation:
    common = {"train.steps": 2, "train.batch": 8, "rounds.per_task": 2, "memory.size": 6}
    return tiny.federation(tiny.experiment(common | (settings or {}), method), streams)


def thetas(result: tiny.Federation) -> Tensor:
    return torch.stack([side.theta() for side in result.clients])


def begun(settings: dict | None = None) -> fedstil_atten.Client:
    """Client 1 at the start of its training in the second round."""
    result = federation(settings)
    result.play(1, ALL)
    result.distribute(2, ALL)
    side = result.clients[1]
    side.learner.begin_round()
    side.begin()
    return side


def decomposed(side: fedstil_atten.Client) -> list[AttentiveAdaptive]:
    return [layer.parametrizations.weight[0] for layer, _ in side.layers.values()]


def weights(side: fedstil_atten.Client) -> Tensor:
    """The weights in use, decomposed or not."""
    return torch.cat([layer.weight.detach().flatten() for layer, _ in side.layers.values()])


# -- receiving the bank ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.8, 1.0])
def test_a_client_starts_from_the_mean_and_its_own_weights(alpha):
    result = federation({"method.alpha": alpha})
    for number in (1, 2):
        result.play(number, ALL)
        local_KP = thetas(result)
        result.distribute(number + 1, ALL)
        expected = alpha * local_KP.mean(0) + (1 - alpha) * local_KP
        torch.testing.assert_close(thetas(result), expected, rtol=0, atol=1e-6)
        assert local_KP.std(0).max() > 1e-4


def test_decomposing_changes_no_weight():
    result = federation({"method.alpha": 0.7})
    result.play(1, ALL)
    local_KP = thetas(result)
    result.distribute(2, ALL)
    side = result.clients[1]
    side.learner.begin_round()
    before = weights(side)
    side.begin()
    torch.testing.assert_close(weights(side), before, rtol=0, atol=1e-6)
    adaptive = torch.cat([side.parameters[name].detach().flatten() for name in side.layers])
    torch.testing.assert_close(adaptive, 0.3 * local_KP[1], rtol=0, atol=1e-6)
    for part in decomposed(side):
        torch.testing.assert_close(part.attention.detach(), torch.full((3,), 0.7 / 3))
    bank = torch.cat([part.bank.flatten(0, -2) for part in decomposed(side)])
    assert torch.equal(bank, local_KP.T)


@resets
def test_the_start_model_is_the_first_bank(reset):
    result = federation(reset)
    result.distribute(1, ALL)
    start = result.clients[0].setup.start
    for side in result.clients:
        side.learner.begin_round()
        side.begin()
        torch.testing.assert_close(weights(side), start, rtol=0, atol=1e-6)
        share = 0.0 if reset else 0.8
        assert [part.attention.tolist() for part in decomposed(side)] == [[pytest.approx(share)]] * 2
        adaptive = torch.cat([parameter.detach().flatten() for parameter in side.parameters.values()])
        torch.testing.assert_close(adaptive, (1 - share) * start, rtol=0, atol=1e-6)


@pytest.mark.parametrize("attention", [0.0, 0.1])
def test_persistent_parts_stay_whatever_bank_comes(attention):
    result = federation({"method.reset": "persist", "method.attention": attention, "train.lr": 1e-2})
    result.play(1, ALL)
    kept = torch.stack([side.adaptive_P for side in result.clients])
    local_KP = thetas(result)
    assert (kept - local_KP).abs().max() > 1e-3  # attention has moved
    result.distribute(2, ALL)
    torch.testing.assert_close(thetas(result), attention * local_KP.sum(0) + kept, rtol=0, atol=1e-6)
    for client, side in enumerate(result.clients):
        side.learner.begin_round()
        side.begin()
        adaptive = torch.cat([parameter.detach().flatten() for parameter in side.parameters.values()])
        torch.testing.assert_close(adaptive, kept[client], rtol=0, atol=1e-6)
        if attention == 0:
            assert torch.equal(adaptive, kept[client])


def test_equal_clients_stay_where_they_are():
    result = federation()
    theta = torch.randn(result.server.theta_KP.shape[1], generator=torch.Generator().manual_seed(0))
    result.server.theta_KP[:] = theta
    result.server.samples_K[ALL] = 1
    for number in (2, 3, 4):
        result.distribute(number, ALL)
        torch.testing.assert_close(thetas(result), theta.expand(3, -1), rtol=0, atol=1e-6)
        for side in result.clients:
            side.learner.begin_round()
            side.begin()
            side.end()
        result.collect(number, ALL)


def test_what_arrives_lies_between_the_clients_and_draws_them_together():
    result = federation({"train.lr": 1e-2})
    for number in range(1, 6):
        result.play(number, ALL)
        before = thetas(result)
        result.distribute(number + 1, ALL)
        after = thetas(result)
        assert (after <= before.amax(0) + 1e-6).all()
        assert (after >= before.amin(0) - 1e-6).all()
        torch.testing.assert_close(after[0] - after[2], 0.2 * (before[0] - before[2]), rtol=1e-4, atol=1e-6)
        assert (before[0] - before[2]).abs().max() > 1e-2


# -- both ends ---------------------------------------------------------------------------------------------------------


@resets
@pytest.mark.parametrize("alpha", [0.37, 1.0])
def test_both_ends_know_the_same_weights_to_the_last_bit(reset, alpha):
    """Changing participation; client 2 joins in the third round."""
    result = federation(reset | {"method.alpha": alpha})
    for number, online in enumerate([[0, 1], [1], [0, 2], ALL, [0], [1, 2], ALL], 1):
        result.play(number, online)
        for client in online:
            assert torch.equal(result.server.theta_KP[client], result.clients[client].theta())
        assert thetas(result).isfinite().all()
    assert len({theta.sum().item() for theta in result.server.theta_KP}) == 3


@resets
def test_a_late_joiner_starts_from_the_mean_of_the_seen_clients(reset):
    result = federation(reset)
    result.play(1, [0, 1])
    mean = thetas(result)[:2].mean(0)
    late = result.clients[2]
    for parameter in late.learner.tail.parameters():
        parameter.data.normal_()  # the travelling weights of a late joiner are not those of the server
    result.distribute(2, ALL)
    torch.testing.assert_close(late.theta(), mean, rtol=0, atol=1e-6)
    if not reset:
        assert torch.equal(result.clients[0].bank_NP.mean(0), late.bank_NP.mean(0))
        torch.testing.assert_close(late.bank_NP.mean(0), mean, rtol=0, atol=1e-6)


def test_the_tail_is_plain_outside_training():
    result = federation()
    names = set(tiny.network().tail.state_dict())
    for number in (1, 2):
        result.distribute(number, ALL)
        for side in result.clients:
            parameters = dict(side.learner.tail.named_parameters())
            side.learner.begin_round()
            side.begin()
            assert all(is_parametrized(layer, "weight") for layer, _ in side.layers.values())
            side.learner.train(number, side.penalty, side.context())
            trained = weights(side)
            side.end()
            assert torch.equal(side.theta(), trained)
            assert set(side.learner.tail.state_dict()) == names
            assert all(side.learner.tail.get_parameter(name) is one for name, one in parameters.items())
            assert all(type(layer) in (nn.Conv2d, nn.Linear) for layer, _ in side.layers.values())
        result.collect(number, ALL)


def test_permuting_the_clients_permutes_the_result(monkeypatch):
    """With random numbers that do not depend on the client."""
    integer = seeding.integer
    monkeypatch.setattr(seeding, "integer", lambda seed, purpose, *when: integer(seed, purpose, *when[1:]))

    def after(order: list[int]) -> Tensor:
        result = federation(streams=[STREAMS[client] for client in order])
        for number in (1, 2, 3):
            result.play(number, ALL)
        result.distribute(4, ALL)
        return thetas(result)

    order = [2, 0, 1]
    torch.testing.assert_close(after(order), after(ALL)[order], rtol=0, atol=1e-6)


# -- training ----------------------------------------------------------------------------------------------------------


def freeze_attention(result: tiny.Federation) -> None:
    def freezing(side: fedstil_atten.Client):
        begin = side.begin

        def begin_frozen() -> None:
            begin()
            for part in decomposed(side):
                part.attention.requires_grad_(False)

        return begin_frozen

    for side in result.clients:
        side.begin = freezing(side)


@pytest.mark.parametrize("tying", [0.0, 1e-2])
def test_with_attention_at_rest_it_is_fedstil_with_uniform_relevance(tying):
    """Then d theta / d A = 1. Weight decay, which would act on A and not on theta, is off."""
    settings = {"method.alpha": 0.6, "method.tying": tying, "train.weight_decay": 0.0}
    plain = {"prototypes.exchange": False, "train.contrast": 0.0, "serving.average": 0.0}
    rested, free, fedstil = (
        federation(settings),
        federation(settings),
        federation(settings | plain | {"method.relevance": "uniform"}, "fedstil"),
    )
    freeze_attention(rested)
    for number in range(1, 5):
        for result in (rested, free, fedstil):
            result.play(number, ALL)
        torch.testing.assert_close(thetas(rested), thetas(fedstil), rtol=0, atol=1e-5)
    assert (thetas(free) - thetas(fedstil)).abs().max() > 2e-5


def test_attention_is_trained_for_each_layer_and_client():
    side = begun()
    side.learner.train(2, side.penalty, side.context())
    moved = torch.stack([part.attention.detach() for part in decomposed(side)]) - 0.8 / 3
    assert moved.shape == (2, 3)
    assert (moved.abs() > 1e-4).all()


def test_tying_is_the_distance_of_both_parts_from_receipt():
    side = begun({"method.tying": 0.5})
    batch, scores = tiny.batch(1, 2), torch.zeros(2, tiny.CLASSES)
    tied = side.context()

    def loss() -> Tensor:
        return side.penalty(trainable_parameters(side.learner.tail), tied, batch, scores)

    assert loss().item() == 0
    side.parameters["classifier.weight"].data += 0.25
    decomposed(side)[0].attention.data[1] -= 2
    count = side.parameters["classifier.weight"].numel()
    assert loss().item() == pytest.approx(0.5 * (0.25 * count + 2), rel=1e-5)
    side.learner.tail.zero_grad()
    loss().backward()
    assert torch.equal(side.parameters["classifier.weight"].grad, torch.full((tiny.CLASSES, 6), 0.5))
    assert decomposed(side)[0].attention.grad.tolist() == [0, -0.5, 0]
    side.end()
    side.begin()
    assert tiny.penalty(side, batch, scores).item() == 0  # decomposed and anchored again


def test_without_tying_there_is_no_penalty():
    assert tiny.penalty(begun(), tiny.batch(1, 2), torch.zeros(2, tiny.CLASSES)) is None


def test_the_sum_over_the_bank_is_not_rounded_under_autocast():
    layer, generator = nn.Linear(40, 30, bias=False), torch.Generator().manual_seed(0)
    part = AttentiveAdaptive(layer.weight, 0.3)
    part.receive_bank(torch.randn(5, 30, 40, generator=generator).movedim(0, -1))
    register_parametrization(layer, "weight", part)
    plain = layer.weight
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer.weight, plain)
        assert layer(torch.ones(2, 40)).dtype == torch.bfloat16


# -- traffic and options -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reset": "keep"}, "expected one of contract, persist"),
        ({"alpha": 1.5}, "method.alpha = 1.5; expected between 0 and 1"),
        ({"attention": -0.1, "reset": "persist"}, "method.attention = -0.1; expected between 0 and 1"),
        ({"attention": 0.2}, "method.attention = 0.2, but reset: contract starts at alpha / K"),
        ({"tying": -1.0}, "method.tying = -1.0; expected between 0 and 1e"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        check_values(fedstil_atten.Options(**options), "method.")


def test_clients_of_a_rank_share_one_copy_of_the_bank_on_the_device():
    """The meta device stands in for a GPU."""
    bank, device = torch.zeros(12), torch.device("meta")
    copy = fedstil_atten.on_device(bank, device)
    assert fedstil_atten.on_device(bank, device) is copy
    assert fedstil_atten.on_device(bank.clone(), device) is not copy  # of the next round
    assert fedstil_atten.on_device(bank, bank.device) is bank
    held = weakref.ref(copy)
    del bank, copy
    assert held() is None
