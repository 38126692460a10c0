"""Training's Adam takes the steps of torch's, to the bit."""

import pytest
import torch
from torch import nn

from fedstil_mpi.client.adam import Adam

SHAPES = [(3, 4), (5,), (2, 3, 3, 3)]


@pytest.fixture
def parameters():
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def give_gradients(of, step):
    """Others at each step; the second parameter has none before the third."""
    generator = torch.Generator().manual_seed(step)
    for place, parameter in enumerate(of):
        gradient = torch.randn(parameter.shape, generator=generator)
        parameter.grad = None if place == 1 and step < 2 else gradient


def test_steps_are_those_of_torch(parameters):
    """Also where the rate changes, and where another goes on from its state."""
    theirs = [nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    mine, reference = Adam(parameters, 0.1, 0.01), torch.optim.Adam(theirs, 0.1, weight_decay=0.01, fused=True)
    for step in range(6):
        if step == 3:
            mine.lr = reference.param_groups[0]["lr"] = 0.03
        if step == 4:
            before, mine = mine, Adam(parameters, 0.03, 0.01)
            mine.restore(before.state())
        give_gradients(parameters, step)
        give_gradients(theirs, step)
        mine.step()
        reference.step()
        assert all(map(torch.equal, parameters, theirs)), step
    mine.clear()
    assert all(parameter.grad is None for parameter in parameters)
