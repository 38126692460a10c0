"""Compression as an aid: both ends agree, nothing is lost for good, and the ledger says what passed."""

import pytest
import torch

from fedstil_mpi.comm.flat import Layout, Part
from fedstil_mpi.config.sections import LOSSY
from fedstil_mpi.methods.aids import innermost
from fedstil_mpi.methods.aids.compression import Codecs, CompressedClient, CompressedServer
from fedstil_mpi.methods.base import Traffic
from fedstil_mpi.methods.fedstil.mixing import mix_rows
from fedstil_mpi.util.errors import InputError
from support import tiny
from support.cases import STREAMS

BOTH = {"compression.up": "ternary", "compression.down": "int4", "serving.average": 0.0}


def played(method, settings, rounds=3, start=None, **of_experiment):
    federation = tiny.federation(
        tiny.experiment({"serving.average": 0.0} | settings, method, **of_experiment), STREAMS[:3], start
    )
    for number in range(1, rounds + 1):
        federation.play(number, range(3))
    return federation


@pytest.mark.parametrize("name", LOSSY)
def test_the_server_knows_a_client_to_the_last_bit(name):
    f = played("fedstil", {"compression.up": name, "compression.down": name})
    f.distribute(4, range(3))
    known = innermost(f.server).theta
    for client, side in enumerate(f.clients):
        assert torch.equal(known[client], innermost(side).theta())
        assert torch.equal(f.server.held[client], side.held)


def test_what_was_not_sent_waits_for_the_next_round():
    """Sum of what was sent + the rest = sum of what was to be sent."""
    f = tiny.federation(tiny.experiment({"compression.up": "sign"}, "fedavg"), STREAMS[:1])
    side, server = f.clients[0], f.server.inner
    moved = torch.zeros_like(server.theta_P)
    start = server.theta_P.clone()
    for number in range(1, 5):
        f.distribute(number, [0])
        f.learn(number, [0])
        moved += side.inner.theta() - side.inner.start
        f.collect(number, [0])
    torch.testing.assert_close(server.theta_P - start + side.unsent, moved, rtol=0, atol=1e-6)
    assert side.unsent.norm() < moved.norm()


def test_what_was_left_out_on_the_way_down_is_in_the_next_difference():
    """A client that the server keeps telling the same thing holds it in the end."""
    f = tiny.federation(tiny.experiment({"compression.down": "ternary"}, "fedavg"), STREAMS[:1])
    f.play(1, [0])
    errors = []
    for _ in range(12):
        f.distribute(2, [0])
        errors.append((f.clients[0].held - f.server.inner.theta_P).norm().item())
    assert errors[-1] < 0.05 * errors[0]


def test_bytes_by_hand():
    f = played("fedavg", BOTH)
    layout = Layout.of(dict(f.clients[0].inner.parameters))
    scalars, scales = (
        6 * 4 * 9 + 12 * 6,
        6 // 2 + 1,
    )  # 36 scalars a channel of the convolution, 6 a row of the classifier
    assert layout.scalars == scalars
    weights = {(e.direction, e.raw, e.encoded) for e in f.ledger.entries if e.kind == "weights"}
    up = 4 + 2 * scales + -(-scalars // 5)
    down = 4 + 2 * scales + -(-scalars // 2)
    assert weights == {("C2S", 4 * scalars, up), ("S2C", 4 * scalars, down)}


def test_without_codecs_nothing_is_wrapped():
    f = tiny.federation(tiny.experiment({}, "fedavg"), STREAMS[:1])
    assert not isinstance(f.server, CompressedServer)
    assert not isinstance(f.clients[0], CompressedClient)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "int8"])
def test_server_and_clients_start_from_what_first_contact_brings(name):
    start = tiny.network()
    exact = torch.cat([p.detach().flatten() for p in start.tail.parameters()])
    f = tiny.federation(tiny.experiment({"compression.first_contact": name}, "fedavg"), STREAMS[:2], start)
    rounded = torch.cat([p.detach().flatten() for p in start.tail.parameters()])
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.01)
    for side in f.clients:
        assert torch.equal(side.theta(), f.server.theta_P)


def test_a_late_joiner_holds_what_the_server_thinks_it_holds():
    f = tiny.federation(tiny.experiment(BOTH, "fedstil"), STREAMS[:3])
    f.parts.initial_model.met.discard(2)
    for number, online in ((1, [0, 1]), (2, [0, 1]), (3, [0, 1, 2])):
        f.play(number, online)
    f.distribute(4, range(3))
    assert torch.equal(f.server.inner.inner.theta[2], innermost(f.clients[2]).theta())
    model = [e.raw for e in f.ledger.entries if e.kind == "model" and e.client == 2]
    assert model == [sum(4 * t.numel() for t in f.parts.initial_model._state.values() if t.is_floating_point())]


def test_prototypes_and_importances_in_16_bits():
    f = played(
        "fedcurv",
        {"compression.importance": "bfloat16", "compression.prototypes": "float16", "prototypes.exchange": True},
    )
    for kind in ("importance", "prototypes"):
        entries = [e for e in f.ledger.entries if e.kind == kind]
        assert {e.raw / e.encoded for e in entries} == {2}


@pytest.mark.parametrize("codec", LOSSY)
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_damaged_message_is_refused_by_whoever_gets_it(direction, codec):
    """Weights and rows alike; and nothing of it is taken in."""
    f = tiny.federation(
        tiny.experiment({f"compression.{direction}": codec, "compression.rows": "known"}, "fedavg"), STREAMS[:1]
    )
    f.play(1, [0])
    side, server = f.clients[0], f.server
    if direction == "up":
        side.absorb({})
        message, before = side.update(), server.inner.theta_P
    else:
        message, before = {kind: rows[0] for kind, rows in server.knowledge([0]).items()}, side.inner.theta()
    for kind in ("weights", "rows"):
        damaged = message | {kind: message[kind].clone()}
        damaged[kind].view(-1)[-1] ^= 1
        with pytest.raises(ValueError, match="damaged"):
            side.absorb(damaged) if direction == "down" else server.collect(
                [0], {k: v[None] for k, v in damaged.items()}
            )
    assert torch.equal(before, server.inner.theta_P if direction == "up" else side.inner.theta())


KNOWN = {"compression.rows": "known", "train.weight_decay": 0.1, "rounds.per_task": 1}


def rows_of(side):
    return side.learner.tail.classifier.weight.detach().clone()


def unknown(side):
    return [pid for pid in range(tiny.CLASSES) if pid not in side.learner.known]


@pytest.mark.parametrize("codec", ["none", "ternary_entropy"])
@pytest.mark.parametrize("method", ["fedavg", "fedstil"])
def test_rows_of_people_never_met_neither_move_nor_travel(method, codec):
    start = tiny.network().tail.classifier.weight
    f = played(method, KNOWN | {"compression.up": codec, "compression.down": codec}, rounds=3)
    for side in f.clients:
        assert torch.equal(rows_of(side)[unknown(side)], start[unknown(side)])
        assert (
            not torch.isclose(rows_of(side)[sorted(side.learner.known)], start[sorted(side.learner.known)]).any(1).all()
        )
    size = 4 * 6 if codec == "none" else 4 + 2 + 2  # six numbers; or a checksum, a scale, six ternary digits
    people = [2, 4, 6]  # each client meets two people a task
    sent = [(e.round, e.raw, e.encoded) for e in f.ledger.entries if (e.direction, e.kind) == ("C2S", "rows")]
    got = [(e.round, e.raw, e.encoded) for e in f.ledger.entries if (e.direction, e.kind) == ("S2C", "rows")]
    assert set(sent) >= {(r, 24 * n, size * n) for r, n in enumerate(people, 1)}
    assert {(r + 1, raw, encoded) for r, raw, encoded in sent if r < 3} == set(got)


@pytest.mark.parametrize("settings", [{"compression.up": "int8"}, {"compression.upload_above": 0.1}])
def test_a_classifier_alone_is_not_sent_by_known_rows(settings):
    options = tiny.experiment(settings | {"compression.rows": "known"}, "fedavg").compression
    weights = Part("weights", 6)
    with pytest.raises(InputError, match="the classifier is all that travels"):
        Codecs.of(options, Layout.of({"classifier.weight": torch.ones(3, 2)}), Traffic((weights,), (weights,)))


def test_the_server_knows_a_client_where_only_known_rows_travel():
    f = played("fedstil", BOTH | KNOWN)
    f.distribute(4, range(3))
    for client, side in enumerate(f.clients):
        assert f.server.known[client] == side.learner.known
        assert torch.equal(f.server.inner.inner.theta[client], innermost(side).theta())


def test_a_row_is_mixed_over_those_who_know_the_person():
    layout = Layout(("trunk", "classifier.weight"), ((1,), (2, 2)), torch.float32)
    theta = torch.tensor([[1.0, 2, 2, 0, 0], [3.0, 6, 6, 9, 9], [5.0, 0, 0, 1, 1]])
    relevance = torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    base = relevance @ theta
    mix_rows(base, relevance, theta, [{0}, {0, 1}, set()], layout)
    # Person 0: (0.5 * 2 + 0.25 * 6) / 0.75. Person 1: client 1 alone. Client 2 takes of itself, who knows nobody.
    expected = [[2.5, 10 / 3, 10 / 3, 9, 9], [3, 6, 6, 9, 9], [5, 0, 0, 1, 1]]
    torch.testing.assert_close(base, torch.tensor(expected))
