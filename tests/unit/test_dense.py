"""People numbered without gaps, whatever their ids are."""

import numpy as np
import pytest

from fedstil_mpi.config import loading
from fedstil_mpi.data.sources import open_original, open_stream
from fedstil_mpi.data.streams.base import Images, Stream, Task
from fedstil_mpi.data.streams.dense import dense
from fedstil_mpi.data.streams.synthetic import SyntheticStream


class Listed(Stream):
    """Two clients with a task each, of given people; in the gallery is a person nobody trains on, too."""

    clients, tasks = 2, 1

    def __init__(self, people, stranger):
        self.people, self.stranger = people, stranger

    def task(self, client, task):
        trained = np.array(self.people[client], np.int64)
        return Task(images(trained), images(trained[::-1]), images(np.append(trained, self.stranger)))


def images(pids):
    return Images(np.zeros((len(pids), 2, 1, 3), np.uint8), pids, np.zeros_like(pids))


@pytest.mark.parametrize("big", [9, 900_000, 20230400000, 999_999_999_999_999_999])
def test_a_number_depends_on_how_many_there_are(big):
    stream = dense(Listed([[big, 3, 3], [big, 8]], 5))
    first, second = stream.task(0, 0), stream.task(1, 0)
    assert first.train.pids.tolist() == [2, 0, 0]  # 3, 8 and the big one are 0, 1 and 2
    assert first.query.pids.tolist() == [0, 0, 2]
    assert first.gallery.pids.tolist() == [2, 0, 0, 3 + 5]
    assert second.train.pids.tolist() == [2, 1]
    for client, task in enumerate((first, second)):
        for split, pids in stream.labels(client, 0).items():
            np.testing.assert_array_equal(pids, getattr(task, split).pids)
        np.testing.assert_array_equal(stream.pids(client, 0), np.unique(task.train.pids))


def test_a_stream_without_gaps_is_left_as_it_is():
    source = Listed([[0, 2], [1]], 20230400000)
    assert dense(source) is source
    data = loading.resolve({"data": {"tasks": 2, "synthetic": {"clients": 3}}}).data
    assert isinstance(open_stream(data, 1), SyntheticStream)


def test_some_clients_of_a_stream_have_no_classes_for_the_others_people():
    data = loading.resolve({"data": {"tasks": 2, "clients": [2], "synthetic": {"clients": 4}}}).data
    stream, original = open_stream(data, 1), open_original(data, 1)
    people = np.concatenate([original.pids(0, task) for task in range(2)])
    assert max(stream.pids(0, task).max() for task in range(2)) == len(np.unique(people)) - 1 < people.max()
