"""Rows of clients, and what is mixed of them: by the matrix product, at the cost of those who take part."""

import subprocess
import sys

import torch

from fedstil_mpi.comm.columns import BLOCK, mix, share_out
from fedstil_mpi.methods.client_matrix import ClientMatrix

P = 2 * BLOCK + 3


def rows(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def played(columns: slice = slice(None)) -> ClientMatrix:
    """Five clients: 1 and 3 have moved and count, 1 moved again, 4 has moved alone."""
    found, moves = ClientMatrix(5, rows(P)[columns]), rows(4, P, seed=2)[:, columns]
    for client, move in zip((1, 3, 4), moves, strict=False):
        found[client] = found[client] + move
    found.count([1, 3])
    found[1] = moves[3]
    return found


def test_a_client_stands_where_all_start_until_it_moves():
    found = played()
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[0], rows(P))
    assert torch.equal(found[4], rows(P) + rows(4, P, seed=2)[2])


def test_mixed_by_its_definition():
    found = played()
    mean, beside = torch.tensor([0.5, 0.0]), torch.tensor([[0.0, 0.2, 0.0, 0.0, 0.3], [1.0, 0.0, 0.0, 0.0, 0.0]])
    expected = beside @ torch.stack([found[client] for client in range(5)])
    expected += mean[:, None] * (found[1] + found[3]) / 2
    torch.testing.assert_close(found.mixed(mean, beside), expected)
    torch.testing.assert_close(found.mixed(mean, 0 * beside), mean[:, None] * (found[1] + found[3]) / 2)


def test_columns_are_mixed_alike_wherever_they_lie():
    weights = torch.tensor([0.5, 0.25]), rows(2, 5, seed=3)
    whole = played().mixed(*weights)
    for ranks in (1, 2, 3, 5):
        shares = share_out(P, ranks)
        assert torch.equal(torch.cat([played(columns).mixed(*weights) for columns in shares], 1), whole)
        parts = torch.cat([mix(weights[1], rows(5, P)[:, columns].contiguous()) for columns in shares], 1)
        assert torch.equal(parts, mix(weights[1], rows(5, P)))


def test_columns_are_shared_out_in_blocks():
    assert share_out(10, 3, block=4) == [slice(0, 4), slice(4, 8), slice(8, 10)]
    assert share_out(10, 2, block=4) == [slice(0, 4), slice(4, 10)]
    assert share_out(3, 2, block=4) == [slice(0, 0), slice(0, 3)]


ROUNDS = """
import torch
from fedstil_mpi.comm.flat import Layout
from fedstil_mpi.launch.allocator import keep_freed_memory
from fedstil_mpi.methods.base import Setup
from fedstil_mpi.methods.fedstil.method import Options, Server
from fedstil_mpi.planning.resident import peak
keep_freed_memory()
start, online = torch.ones(8_000_000), list(range(5))
received = torch.ones(len(online), len(start))
people = [torch.tensor([[1], [2 + client]]) for client in online]
server = Server(Setup(len(online), Layout.of({"w": start}), 1, start), Options(mean_share=0.5))
before = peak()
for _ in range(5):
    server.sent(online, server.knowledge(online))
    server.collect(online, {"weights": received, "people": people})
print((peak() - before) / start.nbytes)
"""


def test_rounds_take_the_memory_of_what_is_kept_and_sent():
    """Five rows that are kept, the sum of them in twice the precision, five that are sent; and up to three for what is under way and
    gaps, in the better of two processes, for that depends on where the system puts blocks; of 32 MB, beside which libraries' pages
    are little. One may have lain there before. Freed rows are used again, so that later rounds add nothing; copies of all would be five more."""
    process = [sys.executable, "-c", ROUNDS]
    rows = [float(subprocess.run(process, capture_output=True, text=True, check=True).stdout) for _ in range(2)]
    assert 5 + 2 + 5 - 1 <= min(rows) <= 5 + 2 + 5 + 3
