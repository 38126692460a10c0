"""Compression as an aid: both ends agree, nothing is lost for good, and the ledger says what passed."""

import pytest
import torch

from fedstil_mpi.comm.flat import Layout
from fedstil_mpi.comm.lossy import NAMES
from fedstil_mpi.methods.aids.compression import CompressedClient, CompressedServer
from support import tiny
from support.cases import STREAMS

BOTH = {"compression.up": "ternary", "compression.down": "int4"}


def played(method, settings, rounds=3, start=None, **of_experiment):
    federation = tiny.federation(tiny.experiment(settings, method, **of_experiment), STREAMS[:3], start)
    for number in range(1, rounds + 1):
        federation.play(number, range(3))
    return federation


@pytest.mark.parametrize("name", NAMES)
def test_the_server_knows_a_client_to_the_last_bit(name):
    f = played("fedstil", {"compression.up": name, "compression.down": name})
    f.distribute(4, range(3))
    known = f.server.inner.inner.theta_KP  # the prototypes' aid is between
    for client, side in enumerate(f.clients):
        assert torch.equal(known[client], side.inner.inner.theta())
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
    assert torch.equal(f.server.inner.inner.theta_KP[2], f.clients[2].inner.inner.theta())
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
