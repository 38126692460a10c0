"""Every method sends the same amounts where its weights are without values, on the device meta, as a plan plays it."""

from math import prod

import numpy as np
import pytest
import torch

from fedstil_mpi.client.learner import Learner
from fedstil_mpi.comm.exchange import CountingExchange
from support import tiny
from support.cases import PRESETS, SETTINGS, STREAMS

BOTH = [0, 1]
AID = {"prototypes.exchange": True}
STEPS = {"train.early_stop": False}


def without_images(learner: Learner) -> None:
    """The learner's image side, of which only the sizes count."""

    def identity_prototypes() -> tuple[torch.Tensor, torch.Tensor]:
        people = np.unique(learner.tasks[learner.task].train.pids)
        return torch.from_numpy(people), torch.empty(len(people), prod(tiny.SHAPE), device="meta")

    learner.counts_only = True
    for number, task in enumerate(learner.tasks):
        shape = len(task.train), *tiny.SHAPE
        learner._before[learner.client, number, "train"] = torch.empty(shape, device="meta")
    learner.token = lambda: torch.empty(prod(tiny.SHAPE), device="meta")  # type: ignore[method-assign]
    learner.identity_prototypes = identity_prototypes  # type: ignore[method-assign]


def played(method: str, preset: str, settings: dict, device: str) -> tiny.Federation:
    """Three rounds of two clients, all but the training of the model; every message has the shape of its part."""
    start = tiny.network()
    start.stem.to(device)
    start.tail.to(device)
    result = tiny.federation(tiny.experiment(SETTINGS | STEPS | settings, method, preset), STREAMS[:2], start)
    result.parts.exchange = CountingExchange()  # no codec can write tensors without values
    for number in (1, 2, 3):
        result.distribute(number, BOTH)
        for side in result.clients:
            if device == "meta" and number == 1:
                without_images(side.learner)
            side.learner.begin_round()
            side.begin()
            side.context()
            side.learner.samples = 8
            side.end()
        result.collect(number, BOTH)
    result.distribute(4, BOTH)
    return result


@pytest.mark.parametrize("settings", [{"rounds.per_task": 2}, AID], ids=["", "with prototypes"])
@pytest.mark.parametrize(("method", "preset"), PRESETS)
def test_messages_are_as_large_as_those_with_values(method, preset, settings):
    meta, real = (played(method, preset, settings, device) for device in ("meta", "cpu"))
    assert meta.ledger.entries == real.ledger.entries
    for side in meta.clients:
        assert {tensor.device.type for tensor in side.learner.tail.state_dict().values()} == {"meta"}
        assert {name: value.shape for name, value in side.learner.tail.state_dict().items()} == {
            name: value.shape for name, value in real.clients[side.learner.client].learner.tail.state_dict().items()
        }
