import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fedstil_mpi.methods import fedavg
from fedstil_mpi.methods.aids.prototypes import Relay
from fedstil_mpi.methods.base import Client, Setup
from fedstil_mpi.methods.federated import weighted_mean
from fedstil_mpi.models.network import adaptive_parameters, trainable_parameters
from support import tiny
from support.golden_files import golden

STREAMS = [[tiny.task(1, 2, seed=1)], [tiny.task(3, 2, seed=2)], [tiny.task(5, 4, seed=3)]]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def disturb(side: Client, generator: torch.Generator) -> None:
    """What training does to the trained parameters, without training."""
    for parameter in side.learner.tail.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)


# -- the weighted mean -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", golden("c_average"), ids=lambda path: path.stem)
@pytest.mark.parametrize("name", ["conv", "fc"])
def test_golden_weighted_mean(path, name):
    case = np.load(path, allow_pickle=False)
    rows = torch.from_numpy(case[f"param_{name}"]).flatten(1)
    mean = weighted_mean(rows, torch.from_numpy(case["train_cnt"]))
    np.testing.assert_allclose(mean, case[f"mean_{name}"].reshape(-1), rtol=1e-4, atol=1e-5)


def test_mean_of_equal_rows_is_the_row():
    row = torch.randn(50, generator=rng())
    torch.testing.assert_close(weighted_mean(row.repeat(4, 1), torch.tensor([7, 1, 30, 2])), row)


def test_only_the_proportions_of_the_counts_matter():
    rows, counts = torch.randn(3, 20, generator=rng()), torch.tensor([1, 5, 3])
    torch.testing.assert_close(weighted_mean(rows, counts), weighted_mean(rows, 1_000_003 * counts))
    torch.testing.assert_close(weighted_mean(rows, counts), (rows[0] + 5 * rows[1] + 3 * rows[2]) / 9)


def test_a_client_without_samples_has_no_influence():
    rows = torch.randn(3, 20, generator=rng())
    without = weighted_mean(rows[[0, 2]], torch.tensor([4, 9]))
    rows[1] = 1e30
    torch.testing.assert_close(weighted_mean(rows, torch.tensor([4, 0, 9])), without)


def test_without_any_samples_it_is_the_plain_mean():
    rows = torch.randn(3, 20, generator=rng())
    torch.testing.assert_close(weighted_mean(rows, torch.zeros(3, dtype=torch.int64)), rows.mean(0))


# -- FedAvg ------------------------------------------------------------------------------------------------------------


def test_server_holds_the_weighted_mean_of_the_clients_models():
    setup = Setup(
        3, tiny.federation(tiny.experiment(method="fedavg"), STREAMS).clients[0].setup.layout, 1, torch.randn(9)
    )
    server = fedavg.Server(setup, fedavg.Options())
    models, counts = torch.randn(3, 9, generator=rng()), torch.tensor([[3], [0], [5]])
    server.collect([0, 1, 2], {"weights": models - setup.start, "samples": counts})
    torch.testing.assert_close(server.knowledge([0])["weights"], (3 * models[0] + 5 * models[2]) / 8)


@pytest.mark.parametrize("norms", ["local", "averaged"])
def test_average_of_equal_models_is_the_identity(norms):
    federation = tiny.federation(tiny.experiment({"method.norms": norms}, "fedavg"), STREAMS)
    federation.distribute(1, range(3))
    for samples, side in enumerate(federation.clients):
        disturb(side, rng(4))
        side.learner.untold.samples = samples
    models = [side.theta() for side in federation.clients]
    assert torch.equal(models[0], models[2])
    federation.collect(1, range(3))
    federation.distribute(2, range(3))
    for side in federation.clients:
        torch.testing.assert_close(side.theta(), models[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("norms", "neck"), [("local", "bnneck"), ("averaged", "bnneck"), ("averaged", "plain")])
def test_what_is_averaged_and_what_stays(norms, neck):
    start = tiny.network(neck=neck)
    federation = tiny.federation(tiny.experiment({"method.norms": norms}, "fedavg"), STREAMS, start)
    for number in (1, 2):
        federation.play(number, range(3))
    federation.distribute(3, range(3))
    one, other = (side.learner.tail.state_dict() for side in federation.clients[:2])
    equal = {name for name in one if torch.equal(one[name], other[name])}
    travelling = trainable_parameters(start.tail) if norms == "averaged" else adaptive_parameters(start.tail)
    counters = {name for name in one if name.endswith("num_batches_tracked")}
    constants = {"neck.weight", "neck.bias"} if neck == "bnneck" else set()
    assert equal == set(travelling) | counters | constants


def rounds_with_changes(method: str, settings: dict, check, rounds: int = 6) -> None:
    """Plays rounds of changing participation, random changes in the place of training; client 2 joins late."""
    federation = tiny.federation(tiny.experiment(settings, method), STREAMS)
    generator = rng(8)
    for number in range(1, rounds + 1):
        online = [[0, 1], [0, 2], [0, 1, 2], [1]][number % 4] if number > 1 else [0, 1]
        federation.distribute(number, online)
        check(federation, online, "distributed")
        for client in online:
            federation.clients[client].learner.begin_round()
            federation.clients[client].learner.untold.samples = 10 + client
            disturb(federation.clients[client], generator)
        federation.collect(number, online)
        check(federation, online, "collected")


@pytest.mark.parametrize("norms", ["local", "averaged"])
def test_both_ends_of_fedavg_know_the_same_weights(norms):
    def check(federation, online, when):
        if when == "distributed":
            for client in online:
                assert torch.equal(federation.clients[client].theta(), federation.server.theta_P)
        else:  # as if models had been sent, and not how far they moved
            models = torch.stack([federation.clients[client].theta() for client in online])
            samples = torch.tensor([10 + client for client in online])
            torch.testing.assert_close(federation.server.theta_P, weighted_mean(models, samples), rtol=1e-5, atol=1e-6)

    rounds_with_changes("fedavg", {"method.norms": norms}, check)


@pytest.mark.parametrize("preset", ["best", "paper", "reference_code"])
@pytest.mark.parametrize("alpha", [0.37, 0.8, 1.0])
def test_both_ends_of_fedstil_know_the_same_weights_to_the_last_bit(preset, alpha):
    def check(federation, online, when):
        for client in online:
            mine = federation.clients[client].theta()
            if preset == "reference_code" and alpha < 0.5:  # alpha * B + A is B up to rounding only
                torch.testing.assert_close(federation.server.theta[client], mine, rtol=0, atol=1e-6)
            else:
                assert torch.equal(federation.server.theta[client], mine)
        if when == "collected":
            assert len({side.theta().sum().item() for side in federation.clients}) == 3

    settings = {"method.alpha": alpha, "method.preset": preset, "prototypes.exchange": False, "serving.average": 0.0}
    rounds_with_changes("fedstil", settings, check)


# -- relay of identity prototypes --------------------------------------------------------------------------------------


def delivered(relay: Relay, client: int) -> list[tuple[int, float]]:
    people, prototypes = relay.deliver(client)
    return [(person, float(row)) for person, row in zip(people, prototypes, strict=True)]


def test_relay():
    relay = Relay(4)
    relay.collect(0, [5, 6], torch.tensor([[0.5], [0.6]]))
    relay.collect(1, [6, 7], torch.tensor([[1.6], [1.7]]))
    assert delivered(relay, 0) == [
        (6, pytest.approx(1.6))
    ]  # not its own prototype, and not those of people it does not know
    assert delivered(relay, 1) == [(6, pytest.approx(0.6))]
    assert delivered(relay, 2) == []
    assert delivered(relay, 0) == delivered(relay, 1) == []  # delivered once
    relay.collect(2, [7, 6], torch.tensor([[2.7], [2.6]]))
    assert delivered(relay, 0) == [(6, pytest.approx(2.6))]
    assert delivered(relay, 2) == [(6, pytest.approx(0.6)), (6, pytest.approx(1.6)), (7, pytest.approx(1.7))]
    relay.collect(0, [7], torch.tensor([[0.7]]))  # meets person 7 later, and gets what was seen before
    assert delivered(relay, 0) == [(7, pytest.approx(1.7)), (7, pytest.approx(2.7))]
    assert delivered(relay, 1) == [(7, pytest.approx(2.7)), (6, pytest.approx(2.6)), (7, pytest.approx(0.7))]


def test_a_second_prototype_of_the_same_client_is_sent_to_the_others():
    relay = Relay(2)
    relay.collect(0, [5], torch.tensor([[1.0]]))
    relay.collect(1, [5], torch.tensor([[2.0]]))
    assert delivered(relay, 1) == [(5, 1.0)]
    relay.collect(0, [5], torch.tensor([[3.0]]))
    assert delivered(relay, 1) == [(5, 3.0)]
    assert delivered(relay, 0) == [(5, 2.0)]


def test_the_relay_keeps_copies():
    relay, row = Relay(2), torch.tensor([[1.0]])
    relay.collect(0, [5], row)
    relay.collect(1, [5], row)
    row.fill_(math.nan)
    assert delivered(relay, 1) == [(5, 1.0)]


@pytest.mark.parametrize("method", ["single", "fedavg", "fedstil"])
def test_clients_rehearse_what_others_saw_of_their_people(method):
    settings = {"prototypes.exchange": True, "rounds.per_task": 1, "memory.size": 0, "train.steps": 1}
    streams = [[tiny.task(1, 2, seed=1), tiny.task(3, seed=2)], [tiny.task(2, 3, seed=3), tiny.task(8, seed=4)]]
    federation = tiny.federation(tiny.experiment(settings, method), streams)
    learners = [side.learner for side in federation.clients]

    def relayed(client: int) -> dict[int, Tensor]:
        return {int(s.pids): s.representations[0] for part in learners[client].relayed for s in [part]}

    federation.play(1, [0, 1])
    assert relayed(0) == relayed(1) == {}
    federation.play(2, [0, 1])
    assert set(relayed(0)) == set(relayed(1)) == {2}
    federation.distribute(3, [0, 1])
    assert set(relayed(0)) == {2, 3}  # client 0 has met person 3 in round 2
    assert set(relayed(1)) == {2, 3}
    mean = learners[1].views.clean(0, "train")[:4].mean(0)  # of the four images of person 2
    torch.testing.assert_close(relayed(0)[2], mean)


def test_the_aid_leaves_the_method_as_it_is():
    def after(exchange: bool) -> Tensor:
        streams = [[tiny.task(1, seed=1)], [tiny.task(2, seed=2)]]  # nobody is known to both
        settings = {"prototypes.exchange": exchange, "train.steps": 2, "rounds.per_task": 9}
        federation = tiny.federation(tiny.experiment(settings, "fedavg"), streams)
        for number in (1, 2, 3):
            federation.play(number, [0, 1])
        return torch.cat([parameter.flatten() for parameter in federation.clients[1].learner.tail.parameters()])

    assert torch.equal(after(True), after(False))
