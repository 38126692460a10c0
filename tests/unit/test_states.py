"""A federation that is stopped between two rounds and built again goes on as if it had not been stopped, bit for bit."""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from fedstil_mpi.checkpoints.coverage import differences, snapshot
from fedstil_mpi.client.untold import server_knows
from fedstil_mpi.comm.exchange import InProcessExchange
from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.config.sections import LOSSY
from fedstil_mpi.federation.schedule import exchanges
from fedstil_mpi.federation.state import nowhere
from fedstil_mpi.federation.trainer import OneByOne
from fedstil_mpi.util.state_tree import State, flatten, unflatten
from support import tiny
from support.cases import FEDERATED, PRESETS, SETTINGS, STEADY, STRANGER, STREAMS

Written = tuple[bytes, str]
"""A state as a file holds it: tensors as safetensors, plain values as JSON."""


def written(state: State) -> Written:
    tensors, plain = flatten(state)
    return save(tensors), json.dumps(plain)


def read(data: Written) -> State:
    return unflatten(load(data[0]), json.loads(data[1]))


# -- state trees -------------------------------------------------------------------------------------------------------


def test_a_tree_comes_back():
    tree = {
        "b.weight": torch.randn(2, 3),
        "counter": torch.tensor(7),
        "gates": {},
        "rows": [[1, torch.arange(3), None], [], torch.empty(0, 4)],
        "a": {"mask": torch.tensor([True, False]), "number": 0.1 + 0.2, "text": "ü", "none": None, "flag": True},
        "half": torch.tensor([1.5, -0.0], dtype=torch.bfloat16),
        "pixels": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "rows of another": torch.randn(6, 4)[:, 1:3],
    }
    back = read(written(tree))
    assert differences(snapshot(back), snapshot(tree)) == ["rows of another"]  # the gaps between them are gone
    assert torch.equal(back["rows of another"], tree["rows of another"])
    assert list(back) == list(tree)  # what is kept by the order of keys is not lost
    assert back["a"]["number"] == 0.1 + 0.2


@pytest.mark.parametrize(
    "leaf",
    [{1, 2}, (1, 2), np.float64(1.0), np.int64(1), np.zeros(2), {1: 2}, {"a/b": 1}, nn.Identity(), {"deep": [{3}]}],
    ids=repr,
)
def test_other_leaves_are_refused(leaf):
    with pytest.raises(TypeError, match="state here"):
        flatten({"here": leaf})


def test_a_parameter_is_kept_as_a_tensor():
    tensors, _ = flatten({"weight": nn.Parameter(torch.ones(2))})
    assert not tensors["weight"].requires_grad


# -- the play ----------------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    method: str
    preset: str
    settings: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return " ".join([self.method, self.preset, *(f"{key}={value}" for key, value in self.settings)])


def case(method: str, preset: str, **settings: Any) -> Case:
    return Case(method, preset, tuple((key.replace("__", "."), value) for key, value in settings.items()))


CASES = [
    *(Case(method, preset) for method, preset in PRESETS if preset != "paper"),
    case("single", "reference_code", train__steps=0, train__epochs=3, train__rate="reference_code"),
    case("single", "best", train__refresh="task", prototypes__exchange=True),
    case("single", "best", train__refresh="epoch", train__augment="default", evaluation__tasks="all"),
    case("ewc", "best", method__importance="round"),
    case("fedcurv", "best", method__importance="round", method__norms="averaged"),
    case("fedcurv", "best", method__penalty=0.0, prototypes__exchange=True),
    case("fedprox", "best", method__anchor="previous"),
    case("fedstil", "best", method__server_memory=0.5, method__tying=1e-3),
    case("fedstil", "best", method__relevance="none"),
    case("fedstil", "paper", method__relevance="token_cosine", prototypes__exchange=True),
    case("fedstil", "reference_code", method__alpha=0.3, method__server_memory=0.3),
    case("fedstil_atten", "best", method__reset="persist", method__tying=1e-3),
    case("fedweit", "best", prototypes__exchange=True, method__threshold=0.0),
    case("fedavg", "best", compression__up="sign", compression__down="int4"),
    case("fedcurv", "best", compression__up="int3", compression__importance="bfloat16"),
    case(
        "fedstil",
        "best",
        compression__up="ternary_entropy",
        compression__down="ternary",
        compression__prototypes="float16",
    ),
    case("fedweit", "best", compression__up="ternary", compression__down="ternary"),
    case("fedstil", "best", compression__rows="known", compression__up="int4", compression__down="int4"),
    case("fedavg", "best", compression__upload_above=0.02),
    case(
        "fedstil", "best", compression__upload_above=0.02, compression__up="ternary_entropy", compression__rows="known"
    ),
    *(case(method, "best", rounds__exchange_every=3, prototypes__exchange=True) for method in FEDERATED),
    *(case(method, "reference_code", rounds__exchange_every=2) for method in ("fedcurv", "fedstil", "fedweit")),
    case("fedprox", "best", method__anchor="previous", rounds__exchange_every=2),
    case("fedstil", "best", rounds__exchange_every=3, compression__rows="known", compression__up="ternary"),
    case("fedstil_atten", "best", method__reset="persist", method__tying=1e-3, rounds__exchange_every=2),
]
ALL = [
    *CASES,
    *(Case(method, preset) for method, preset in PRESETS if preset == "paper"),
    case("fedprox", "best", method__anchor="previous", compression__down="ternary"),
    case(
        "fedstil", "reference_code", compression__up="int8", compression__down="int8", compression__first_contact="int8"
    ),
    case("fedstil_atten", "best", compression__up="ternary", compression__down="ternary"),
    case("fedavg", "best", compression__rows="known"),
    *(case(method, "best", compression__upload_above=0.02, compression__up="int8") for method in FEDERATED),
    *(case(method, "reference_code", rounds__exchange_every=2) for method in ("fedavg", "fedprox", "fedstil_atten")),
]
MORE = STEADY | {"rounds.per_task": 2, "evaluation.protocol": "market"}
OF_METHOD = {"fedweit": {"method.knowledge": 2}}


class Plan(NamedTuple):
    online: list[list[int]]
    """Online clients, one list a round."""
    streams: list
    neck: str

    def rounds(self, every: int, after: int = 0) -> Iterator[tuple[int, list[int], list[int], list[int]]]:
        """Numbers, and who is online, receives and sends."""
        exchanging = exchanges(self.online, every, range(len(self.streams)))
        for number, (online, of_round) in enumerate(zip(self.online, exchanging, strict=True), 1):
            if number > after:
                yield number, online, *of_round


PLANS = {
    "all clients": Plan([[0, 1, 2]] * 6, STREAMS, "bnneck"),
    # Client 1 misses what is sent in rounds 1 to 4, client 2 joins late, client 3 never does.
    "some": Plan([[0, 1], [0], [0, 2], [0, 2], [1, 2], [0, 1]], [*STREAMS, STRANGER], "plain"),
}


@cache
def config(case: Case) -> Experiment:
    settings = SETTINGS | MORE | OF_METHOD.get(case.method, {}) | dict(case.settings)
    return tiny.experiment(settings, case.method, case.preset)


def build(case: Case, plan: Plan) -> tiny.Federation:
    return tiny.federation(config(case), plan.streams, tiny.network(neck=plan.neck))


class RecordingExchange(InProcessExchange):
    """Remembers what arrives, by round."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: dict[int, list] = {}

    def down(self, round, parts, online, knowledge):
        return self._record(round, super().down(round, parts, online, knowledge))

    def up(self, round, parts, online, updates):
        return self._record(round, super().up(round, parts, online, updates))

    def _record(self, round, messages):
        self.sent.setdefault(round, []).append(snapshot(messages))
        return messages


class WatchingTrainer(OneByOne):
    """Looks at the clients when they are about to train."""

    def train(self, round, clients, efforts, stop):
        self.begun = [snapshot(side, transient=True) for side in clients]
        return super().train(round, clients, efforts, stop)


class Seen:
    """What can be compared of two runs, by round."""

    def __init__(self, federation: tiny.Federation):
        self.federation = federation
        federation.parts.exchange, federation.parts.trainer = RecordingExchange(), WatchingTrainer(nowhere)
        self.sent = federation.parts.exchange.sent
        self.metrics: dict[int, bytes] = {}
        self.begun: dict[int, list[dict[str, Any]]] = {}
        """Round -> every online client when it is about to train; last the server, when it has distributed."""
        self.ended: dict[int, list[dict[str, Any]]] = {}
        """Round -> every client, last the server."""
        self.written: dict[int, dict[str, Written]] = {}
        self.final: list = []

    def play(self, plan: Plan, after: int = 0) -> "Seen":
        """All rounds but those up to `after`, then the closing distribution."""
        every = self.federation.parts.schedule.exchange_every
        for number, online, receivers, senders in plan.rounds(every, after):
            self.round(number, online, receivers, senders)
        met = [client for client, side in enumerate(self.federation.clients) if side.learner.draws]
        self.federation.distribute(len(plan.online) + 1, met)
        self.search(len(plan.online) + 1)
        learners = [side.learner for side in self.federation.clients]
        self.final = [(learner.fingerprint(), dict(learner.forward_counts)) for learner in learners]
        return self

    def round(self, number: int, online: list[int], receivers: list[int], senders: list[int]) -> None:
        """With a look at everything before and after training."""
        federation = self.federation
        federation.distribute(number, receivers)
        served = snapshot(federation.server, transient=bool(receivers))
        federation.learn(number, online)
        federation.collect(number, senders)
        self.search(number)
        self.begun[number] = [*federation.parts.trainer.begun, served]
        self.ended[number] = everything(federation)
        self.written[number] = states(federation)

    def search(self, number: int) -> None:
        self.metrics[number] = self.federation.search(self.federation.clients[0].task_aware).tobytes()


def everything(federation: tiny.Federation) -> list[dict[str, Any]]:
    return [snapshot(thing) for thing in (*federation.clients, federation.server)]


def apart(some: list[dict[str, Any]], others: list[dict[str, Any]]) -> list[str]:
    return [path for pair in zip(some, others, strict=True) for path in differences(*pair)]


def states(federation: tiny.Federation) -> dict[str, Written]:
    """The states of server and clients, as files hold them."""
    of = {"server": federation.server.state()}
    of |= {str(client): federation.parts.client_state(client) for client in federation.parts.clients}
    return {name: written(state) for name, state in of.items()}


def restored(case: Case, plan: Plan, files: dict[str, Written]) -> tiny.Federation:
    """A fresh federation that takes up these states."""
    federation = build(case, plan)
    of = {name: read(file) for name, file in files.items()}

    def theta_of(client: int) -> Tensor:
        setup, learner = federation.clients[client].setup, of[str(client)]["learner"]
        return server_knows(learner, setup.layout) if learner["draws"] else setup.start

    for client in federation.parts.clients:
        federation.parts.restore_client(client, of[str(client)])
    federation.server.restore(of["server"], theta_of)
    return federation


@cache
def uninterrupted(case: Case, plan: str) -> Seen:
    return Seen(build(case, PLANS[plan])).play(PLANS[plan])


def check(case: Case, plan: str, stop: int) -> None:
    straight = uninterrupted(case, plan)
    federation = restored(case, PLANS[plan], straight.written[stop])
    assert apart(everything(federation), straight.ended[stop]) == []
    resumed = Seen(federation).play(PLANS[plan], after=stop)
    assert apart(resumed.begun[stop + 1], straight.begun[stop + 1]) == []
    rounds = range(stop + 1, len(PLANS[plan].online) + 2)
    assert list(resumed.metrics) == list(rounds)
    for number in rounds:
        assert resumed.sent.get(number) == straight.sent.get(number)
        assert resumed.metrics[number] == straight.metrics[number]
    assert resumed.final == straight.final
    last = len(PLANS[plan].online)
    for name, (tensors, plain) in straight.written[last].items():
        assert resumed.written[last][name][0] == tensors
        assert json.loads(resumed.written[last][name][1]) == json.loads(plain)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_stopped_at_the_end_of_a_task(case):
    """The task of clients 0 and 2; client 1 has another round of its own before it."""
    check(case, "some", 4)


@pytest.mark.parametrize("case", [case for case in CASES if case.preset == "best" and not case.settings], ids=str)
def test_stopped_within_a_task(case):
    check(case, "all clients", 5)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("plan", "stop"), [("all clients", 1), ("all clients", 4), ("all clients", 5), ("some", 1), ("some", 5)]
)
@pytest.mark.parametrize("case", ALL, ids=str)
def test_stopped_anywhere(case, plan, stop):
    check(case, plan, stop)


@pytest.mark.long
@pytest.mark.parametrize("codec", LOSSY)
@pytest.mark.parametrize("method", FEDERATED)
def test_stopped_with_any_codec(method, codec):
    check(case(method, "best", compression__up=codec, compression__down=codec), "some", 4)


def test_an_attribute_that_nobody_keeps_is_found():
    case, plan = Case("fedavg", "best"), PLANS["some"]
    federation = build(case, plan)
    plain = everything(federation)
    federation.clients[0].momentum = torch.zeros(3)
    federation.clients[1].learner.forward_counts["else"] = 1
    federation.server.rounds = 1
    found = [differences(*pair) for pair in zip(plain, everything(federation), strict=True)]
    assert found[0] == ["Client.momentum"]
    assert found[1] == ["Client.learner/Learner.forward_counts/else"]
    assert found[2] == found[3] == []
    assert found[4] == ["Server.rounds"]
