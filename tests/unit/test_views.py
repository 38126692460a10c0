"""Streams made of streams: some clients only, and all clients' training images in one."""

import numpy as np
import pytest

from fedstil_mpi import methods
from fedstil_mpi.config import loading
from fedstil_mpi.config.synthetic import SyntheticOptions
from fedstil_mpi.data.sources import open_stream
from fedstil_mpi.data.streams.pooled import PooledStream
from fedstil_mpi.data.streams.subset import SubsetStream
from fedstil_mpi.data.streams.synthetic import SyntheticStream
from fedstil_mpi.federation.plan import make_plan
from fedstil_mpi.util.errors import InputError
from support import TINY


@pytest.fixture(scope="module")
def stream():
    options = SyntheticOptions(clients=3, people_per_task=3, train_images=2, query_images=1, gallery_images=1)
    return SyntheticStream(options, 1, tasks=2, height=32, width=16)


def test_subset_shows_the_given_clients_unchanged(stream):
    part = SubsetStream(stream, [2, 0])
    assert (part.clients, part.tasks) == (2, 2)
    for client, member in enumerate((2, 0)):
        assert np.array_equal(part.pids(client, 1), stream.pids(member, 1))
        for split in ("train", "query", "gallery"):
            mine, source = getattr(part.task(client, 1), split), getattr(stream.task(member, 1), split)
            assert np.array_equal(mine.pixels, source.pixels)
            assert np.array_equal(mine.pids, source.pids)


@pytest.mark.parametrize("clients", [[], [0, 0], [3], [-1]])
def test_subset_refuses_clients_there_are_not(stream, clients):
    with pytest.raises(InputError, match=r"data\.clients"):
        SubsetStream(stream, clients)


@pytest.mark.parametrize(("pooled", "steps", "expected"), [(True, 2, 6), (False, 2, 2), (True, 0, 0)])
def test_on_all_clients_images_a_client_has_the_steps_and_memory_of_all(pooled, steps, expected):
    """So that each image is seen as often, and as many are kept; where epochs are counted, steps follow from the images."""
    source = loading.read(TINY, [f"data.pooled={str(pooled).lower()}", f"train.steps={steps}"])
    method = methods.load("single")
    experiment = loading.resolve(source | {"method": {"name": "single"}}, method.Options, method.PRESETS)
    plan = make_plan(experiment, method, open_stream(experiment.data, 1))
    assert plan.learners_experiment.train.steps == expected
    assert plan.experiment.train.steps == steps  # what is saved with the run
    assert plan.learners_experiment.memory.size == experiment.memory.size * (3 if pooled else 1)
    assert plan.learners_experiment.train.epochs == experiment.train.epochs


def test_pooled_training_images_are_those_of_all_clients_and_tests_are_ones_own(stream):
    pooled = PooledStream(stream)
    own, all_of_them = stream.task(1, 0), pooled.task(1, 0)
    assert len(all_of_them.train) == sum(len(stream.task(client, 0).train) for client in range(3))
    everyone = {person for client in range(3) for person in stream.pids(client, 0).tolist()}
    assert set(all_of_them.train.pids.tolist()) == set(pooled.pids(1, 0).tolist()) == everyone
    assert np.array_equal(all_of_them.query.pixels, own.query.pixels)
    assert np.array_equal(all_of_them.gallery.pixels, own.gallery.pixels)
