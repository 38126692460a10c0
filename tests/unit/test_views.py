"""Streams made of streams: some clients only, and all clients' training images in one."""

import numpy as np
import pytest

from fedstil_mpi.config.synthetic import SyntheticOptions
from fedstil_mpi.data.streams.pooled import PooledStream
from fedstil_mpi.data.streams.subset import SubsetStream
from fedstil_mpi.data.streams.synthetic import SyntheticStream
from fedstil_mpi.util.errors import InputError


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


def test_pooled_training_images_are_those_of_all_clients_and_tests_are_ones_own(stream):
    pooled = PooledStream(stream)
    own, all_of_them = stream.task(1, 0), pooled.task(1, 0)
    assert len(all_of_them.train) == sum(len(stream.task(client, 0).train) for client in range(3))
    everyone = {person for client in range(3) for person in stream.pids(client, 0).tolist()}
    assert set(all_of_them.train.pids.tolist()) == set(pooled.pids(1, 0).tolist()) == everyone
    assert np.array_equal(all_of_them.query.pixels, own.query.pixels)
    assert np.array_equal(all_of_them.gallery.pixels, own.gallery.pixels)
