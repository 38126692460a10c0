from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from fedstil_mpi.comm.flat import Part
from fedstil_mpi.comm.ledger import DOWN, UP, Entry, Ledger
from fedstil_mpi.federation.initial_model import InitialModel
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.models.network import Network, adaptive_parameters, build, network_state
from support import played, tiny

BOOKED = [(1, 0, DOWN, "model", 100), (1, 1, DOWN, "model", 100), (1, 0, UP, "weights", 40), (2, 0, UP, "weights", 40)]


def ledger(*entries: tuple) -> Ledger:
    booked = Ledger()
    for entry in entries:
        booked.book(*entry)
    return booked


def test_totals():
    booked = ledger(*BOOKED, (2, 1, UP, "weights", 40, 3))
    assert booked.total(DOWN) == 200
    assert booked.total(UP) == 83
    assert booked.total(UP, round=2) == 43
    assert booked.total(UP, client=0) == 80
    assert booked.total(UP, 2, 1) == 3
    assert booked.total(DOWN, 2) == 0
    assert booked.by_kind() == {(DOWN, "model"): (200, 200), (UP, "weights"): (120, 83)}


def test_nothing_sent_leaves_no_entry():
    assert ledger((1, 0, UP, "people", 0)).entries == []
    assert len(ledger((1, 0, UP, "weights", 4, 0)).entries) == 1  # encoded to nothing, but there was something


def test_no_difference_whatever_the_order():
    assert ledger(*BOOKED).difference(ledger(*reversed(BOOKED))) == []
    assert Ledger().difference(Ledger()) == []


@pytest.mark.parametrize("field", range(5))
def test_difference_names_what_differs(field):
    changed = list(BOOKED[2])
    changed[field] = {0: 9, 1: 9, 2: DOWN, 3: "token", 4: 41}[field]
    lines = ledger(*BOOKED).difference(ledger(*BOOKED[:2], tuple(changed), BOOKED[3]))
    one, other = (ledger(tuple(entry)).entries[0] for entry in (BOOKED[2], changed))
    assert lines == [f"only here: {one}", f"only there: {other}"]


def test_difference_of_one_round_leaves_out_the_others():
    """Bytes of rounds 1 and 3 differ; in round 2 the order alone does."""
    second = [(2, 0, UP, "weights", 40), (2, 1, UP, "weights", 40)]
    here = ledger((1, 0, UP, "weights", 7), *second, (3, 0, UP, "weights", 7))
    there = ledger((1, 0, UP, "weights", 8), *reversed(second), (3, 0, UP, "weights", 8))
    assert [len(here.difference(there, round)) for round in (1, 2, 3, 4, None)] == [2, 0, 2, 0, 4]


def test_difference_counts():
    twice = ledger(*BOOKED, BOOKED[0])
    entry = Entry(1, 0, DOWN, "model", 100, 100)
    assert twice.difference(ledger(*BOOKED)) == [f"only here: {entry}"]
    assert ledger(*BOOKED).difference(twice) == [f"only there: {entry}"]


# -- ResNet-18 with 8000 classes and images of 128 x 64, whose scalars were counted in the reference code --------------

FULL = 15_284_181


def size(parts: tuple[Part, ...]) -> tuple[int, int]:
    """Scalars and bytes."""
    return sum(part.scalars for part in parts), sum(part.itemsize for part in parts)


@pytest.fixture(scope="module")
def resnet() -> Network:
    with torch.device("meta"):
        return build("resnet18", num_classes=8000, image_size=(128, 64))


def test_first_contact_without_a_checkpoint_is_the_whole_state(resnet):
    contact = InitialModel(resnet, (), adaptive_parameters(resnet.tail))
    assert size(contact.parts(complete=True)) == (FULL, 61_136_808)  # 21 counters of batch norms are int64


def test_first_contact_with_a_checkpoint_is_the_classifier(resnet):
    provided = set(network_state(resnet)) - {"tail.classifier.weight"}
    contact = InitialModel(resnet, provided, adaptive_parameters(resnet.tail))
    assert size(contact.parts(complete=True)) == (4_096_000, 4 * 4_096_000)
    assert contact.parts(complete=False) == ()


def test_a_late_joiner_gets_no_weights_that_the_knowledge_brings(resnet):
    contact = InitialModel(resnet, (), adaptive_parameters(resnet.tail))
    assert size(contact.parts(complete=False))[0] == FULL - 12_484_608
    alone = InitialModel(resnet, (), ())
    assert alone.parts(complete=False) == alone.parts(complete=True)


# -- the prediction and what really passes -----------------------------------------------------------------------------


@pytest.mark.parametrize("engine", [played.play, played.count])
def test_relayed_prototypes_by_hand(engine):
    """Two clients, two tasks of one round. Client 1 meets person 5 in its second task, which client 0 met in its first."""
    streams = [[tiny.task(5, 6), tiny.task(7)], [tiny.task(6), tiny.task(5, 8)]]
    config = tiny.experiment({"prototypes.exchange": True, "rounds.per_task": 1, "train.steps": 1}, "single")
    plan = Schedule(1, clients=2, tasks=2, per_task=1, total=2, clients_per_round=2, evaluate_every=1)
    booked = engine(config, streams, plan).exchange.ledger
    per_person, headers = 8 + 4 * 128, 16
    assert [booked.total(UP, 1, 0), booked.total(UP, 1, 1)] == [2 * per_person + headers, per_person + headers]
    assert [booked.total(UP, 2, 0), booked.total(UP, 2, 1)] == [per_person + headers, 2 * per_person + headers]
    # Round 2: each gets how the other saw person 6. Closing: client 0 gets person 5, and so does client 1.
    assert [booked.total(DOWN, 2, client) for client in (0, 1)] == [per_person + headers] * 2
    assert [booked.total(DOWN, 3, client) for client in (0, 1)] == [per_person + headers] * 2


# -- first contact itself ----------------------------------------------------------------------------------------------


class KeepingExchange:
    """An exchange that keeps what the server sends for the other end."""

    is_server = True

    def __init__(self) -> None:
        self.sent: dict[str, Tensor] | None = None
        self.ledger = Ledger()

    def broadcast(self, round: int, parts: tuple[Part, ...], online: list[int], knowledge: dict[str, Tensor]) -> dict:
        self.sent = self.sent or {kind: value.clone() for kind, value in knowledge.items()}
        return self.sent


def after_first_contact(
    provided: tuple[str, ...] = (), travelling: tuple[str, ...] = (), *, complete: bool = True
) -> tuple[Network, Network]:
    """The server's network, and the other end's after first contact with client 3."""
    server, other = tiny.network(1), tiny.network(2)
    server.tail.neck.num_batches_tracked += 5
    for end, exchange in (
        (server, first := KeepingExchange()),
        (other, SimpleNamespace(is_server=False, broadcast=first.broadcast)),
    ):
        InitialModel(end, provided, travelling).send_to_new_clients(exchange, 2, [3], complete=complete)
    return server, other


def differing(one: Network, other: Network) -> set[str]:
    states = network_state(one), network_state(other)
    return {name for name in states[0] if not torch.equal(states[0][name], states[1][name])}


def test_first_contact_brings_the_whole_state():
    assert differing(*after_first_contact()) == set()


def test_first_contact_leaves_out_what_is_provided_and_what_travels_later():
    assert differing(*after_first_contact(provided=("stem.conv.weight",))) == {"stem.conv.weight"}
    travelling = ("trunk.conv.weight", "classifier.weight")
    assert differing(*after_first_contact(travelling=travelling)) == set()
    left_out = differing(*after_first_contact(travelling=travelling, complete=False))
    assert left_out == {f"tail.{name}" for name in travelling}


def test_every_client_gets_the_initial_model_once():
    """And every rank: to a later client of it nothing is moved, but booked."""
    contact, first, later = InitialModel(tiny.network(), (), ()), KeepingExchange(), Ledger()
    assert contact.send_to_new_clients(first, 1, [0, 2], complete=True) == [0, 2]
    books = SimpleNamespace(is_server=True, ledger=later)
    assert contact.send_to_new_clients(books, 2, [0, 1, 2], complete=False) == [1]
    assert later.total(DOWN, 2, 1) == later.total(DOWN) == sum(part.itemsize for part in contact.parts(complete=False))
    nothing_is_sent = SimpleNamespace()
    assert contact.send_to_new_clients(nothing_is_sent, 3, [0, 1, 2], complete=False) == []
    assert contact.met == {0, 1, 2}
