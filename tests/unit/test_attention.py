"""Tails with torch's own attention, whose projections are plain parameters and no layers."""

import pytest
import torch
from torch import Tensor, nn

from fedstil_mpi.checkpoints.coverage import forgotten_by_client
from fedstil_mpi.models.activations import measure_passing
from fedstil_mpi.models.network import Network, Tail, adaptive_parameters
from support import tiny
from support.cases import PRESETS, SETTINGS, STEADY, STREAMS

NAME = "trunk.attention.attention.in_proj_weight"

MORE = STEADY | {"evaluation.protocol": "market"}


class Attention(nn.Module):
    """Maps [n, 4, h, w] -> tokens [n, h w, 4]."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, maps: Tensor) -> Tensor:
        tokens = maps.flatten(2).transpose(1, 2)
        return tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]


class Mean(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.mean(1)


def network() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tail = Tail({"attention": Attention(), "pool": Mean()}, 4, tiny.CLASSES, "bnneck")
    return Network(tiny.network().stem, tail, frozenset())


def test_the_projections_are_among_the_weights():
    weights = adaptive_parameters(network().tail)
    assert list(weights) == [NAME, "trunk.attention.attention.out_proj.weight", "classifier.weight"]
    apart = nn.Module()
    apart.attention = nn.MultiheadAttention(4, 2, kdim=3, vdim=5)
    names = ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"]
    assert list(adaptive_parameters(apart)) == [f"attention.{name}" for name in names]


@pytest.mark.parametrize(
    ("method", "preset"), [pytest.param(*of, marks=pytest.mark.long) if of[1] == "paper" else of for of in PRESETS]
)
def test_every_method_trains_and_sends_them(method, preset):
    start, settings = network(), SETTINGS | MORE | ({"method.knowledge": 2} if method == "fedweit" else {})
    federation = tiny.federation(tiny.experiment(settings, method, preset), STREAMS, start)
    before = start.tail.get_parameter(NAME).detach().clone()
    for number in (1, 2):
        federation.play(number, range(3))
    assert [forgotten_by_client(side, start) for side in federation.clients] == [[], [], []]
    federation.distribute(3, range(3))
    federation.search()
    for side in federation.clients:
        trained = side.learner.tail.trunk.attention.attention.in_proj_weight
        assert trained.isfinite().all()
        assert not torch.equal(trained.detach(), before)
    layout = federation.clients[0].setup.layout
    assert (NAME in layout.names) == bool(federation.traffic.up)


def test_its_memory_is_counted():
    with torch.device("meta"):
        passing = measure_passing(Attention(), (4, 8, 4))
    assert passing.kept == 5 * 32 * 4 * 4  # bytes: queries, keys, values, what they select, its projection
