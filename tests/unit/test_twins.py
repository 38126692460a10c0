"""A twin has layers of its own around the same memory."""

import copy

import torch
from torch import nn
from torch.nn.utils import parametrize

from fedstil_mpi.models.twins import twin


class Twice(nn.Module):
    def forward(self, weight):
        return 2 * weight


def module() -> nn.Module:
    shared = nn.Linear(3, 3)
    layers = nn.Sequential(shared, nn.BatchNorm1d(3), nn.Sequential(), shared, nn.Linear(3, 2, bias=False))
    layers[1].register_module("none", None)
    layers.remarks = {"of": [layers[1]]}
    layers[4].weight.requires_grad_(False)
    return layers


def test_it_is_a_deep_copy_but_for_the_memory():
    original = module()
    same, copied = twin(original), copy.deepcopy(original)
    for mine, theirs in zip(same.modules(), copied.modules(), strict=True):
        assert type(mine) is type(theirs)
        assert vars(mine).keys() == vars(theirs).keys()
    pairs = list(zip(same.state_dict().items(), original.state_dict().items(), strict=True))
    assert all(name == as_it_was and a.data_ptr() == b.data_ptr() for (name, a), (as_it_was, b) in pairs)
    assert [p.requires_grad for p in same.parameters()] == [p.requires_grad for p in original.parameters()]
    assert same[0] is same[3]
    assert same.remarks["of"][0] is same[1]
    assert not set(map(id, same.modules())) & set(map(id, original.modules()))


def test_what_is_done_to_a_twin_is_done_to_it_alone():
    original, samples = module().eval(), torch.randn(4, 3)
    before, same = original(samples), twin(original)
    same[4].register_forward_hook(lambda *_: torch.zeros(1))
    same[2].append(nn.ReLU())
    same.train()
    assert torch.equal(original(samples), before)
    assert not original.training
    assert not twin(original)[4]._forward_hooks


def test_parametrised_weights_are_copied_as_deepcopy_does():
    original = nn.Sequential(nn.Linear(3, 2))
    parametrize.register_parametrization(original[0], "weight", Twice())
    same, samples = twin(original), torch.randn(4, 3)
    assert torch.equal(same(samples), original(samples))
    assert (
        same[0].parametrizations.weight.original.data_ptr() == original[0].parametrizations.weight.original.data_ptr()
    )
