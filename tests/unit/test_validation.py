"""The validation view: what is held out of training is searched for at the other clients; the test is not touched."""

import numpy as np
import pytest

from fedstil_mpi import methods
from fedstil_mpi.config.schema import Data, Experiment
from fedstil_mpi.config.synthetic import SyntheticOptions
from fedstil_mpi.data.sources import open_stream
from fedstil_mpi.data.streams.base import SPLITS, Images, Stream, Task
from fedstil_mpi.data.streams.pooled import PooledStream
from fedstil_mpi.data.streams.synthetic import SyntheticStream
from fedstil_mpi.data.streams.validation import ValidationStream
from fedstil_mpi.federation.plan import make_plan
from fedstil_mpi.util.errors import InputError

OPTIONS = SyntheticOptions(clients=3, people_per_task=4, train_images=3, query_images=1, gallery_images=1)
CELLS = [(client, task) for client in range(3) for task in range(2)]


class Counted(Stream):
    """Pictures of one pixel each of another value; `counts` images of person 0, 1, ... at every client."""

    clients, tasks = 2, 1

    def __init__(self, *counts: int):
        self.counts = counts

    def task(self, client: int, task: int) -> Task:
        pids = np.repeat(np.arange(len(self.counts)), self.counts)
        pixels = np.arange(3 * len(pids), dtype=np.uint8).reshape(-1, 1, 1, 3) + np.uint8(100 * client)
        return Task(*(Images(pixels, pids, np.full(len(pids), client)) for _ in range(3)))


@pytest.fixture(scope="module")
def source():
    return SyntheticStream(OPTIONS, 1, tasks=2, height=32, width=16)


@pytest.fixture(scope="module")
def view(source):
    return ValidationStream(source)


def labelled(images: Images) -> set[tuple[bytes, int, int]]:
    rows = zip(images.pixels, images.pids.tolist(), images.cameras.tolist(), strict=True)
    return {(pixels.tobytes(), person, camera) for pixels, person, camera in rows}


def identities(stream: Stream, *splits: str) -> set[tuple[bytes, int, int]]:
    return set().union(*(labelled(getattr(stream.task(*cell), split)) for cell in CELLS for split in splits))


def test_nothing_that_anybody_trains_on_is_searched_or_searched_for(view):
    assert identities(view, "train").isdisjoint(identities(view, "query", "gallery"))


def test_all_images_are_training_images_of_the_source_under_their_labels(source, view):
    for cell in CELLS:
        train, task = source.task(*cell).train, view.task(*cell)
        assert labelled(task.train) | labelled(task.query) == labelled(train)
        assert len(task.train) + len(task.query) == len(train)
        assert np.array_equal(view.pids(*cell), np.unique(task.train.pids))
    assert identities(view, "train", "query", "gallery").isdisjoint(identities(source, "query", "gallery"))


def test_the_gallery_is_what_is_held_out_of_all_tasks_of_the_others(view):
    for client, task in CELLS:
        others = [view.task(*cell).query for cell in CELLS if cell[0] != client]
        assert labelled(view.task(client, task).gallery) == set().union(*map(labelled, others))


def test_everyone_that_another_client_trains_on_can_be_found(source, view):
    for client, task in CELLS:
        seen = {p for other, when in CELLS if other != client for p in source.pids(other, when).tolist()}
        split = view.task(client, task)
        assert set(split.query.pids.tolist()) & seen == set(split.query.pids.tolist()) & set(
            split.gallery.pids.tolist()
        )


@pytest.mark.parametrize(("held_out", "left"), [(1, [1, 1, 4]), (2, [1, 1, 3]), (9, [1, 1, 1])])
def test_the_last_images_are_held_out_and_one_always_remains(held_out, left):
    source = Counted(1, 2, 5)
    task = ValidationStream(source, held_out).task(0, 0)
    assert np.bincount(task.train.pids).tolist() == left
    assert np.bincount(task.query.pids, minlength=3).tolist() == [1 - left[0], 2 - left[1], 5 - left[2]]
    last = source.task(0, 0).train.pixels[-(5 - left[2]) :]
    assert np.array_equal(task.query.pixels[task.query.pids == 2], last)


def test_it_is_switched_on_by_the_config_and_leaves_pooled_training_clean(source, view):
    data = Data(synthetic=OPTIONS, height=32, width=16, tasks=2, validation=True, pooled=True)
    stream = open_stream(data, 1)
    assert isinstance(stream, PooledStream)
    assert labelled(stream.task(1, 0).query) == labelled(view.task(1, 0).query)
    assert labelled(stream.task(1, 0).train).isdisjoint(identities(view, "query", "gallery"))
    assert view.warmup() is not None


def test_what_cannot_be_held_out_or_searched_is_an_input_error():
    with pytest.raises(InputError, match="no task has query images"):
        make_plan(Experiment(), methods.load("single"), ValidationStream(Counted(1, 1, 1, 1)))
    alone = Counted(2)
    alone.clients = 1
    with pytest.raises(InputError, match="only one"):
        ValidationStream(alone)
    with pytest.raises(InputError, match="holds out 0"):
        ValidationStream(Counted(2), 0)


@pytest.mark.parametrize("cell", CELLS)
def test_labels_are_those_of_the_images(cell, view):
    for stream in (view, PooledStream(view)):
        task, labels = stream.task(*cell), stream.labels(*cell)
        for split in SPLITS:
            assert labels[split].tolist() == getattr(task, split).pids.tolist()
        if cameras := stream.cameras(*cell):
            for split in SPLITS:
                assert cameras[split].tolist() == getattr(task, split).cameras.tolist()


def test_a_task_whose_people_have_one_image_each_is_trained_on_and_not_searched():
    stream = ValidationStream(Counted(1, 1))
    task, labels = stream.task(0, 0), stream.labels(0, 0)
    assert (len(task.query), len(labels["query"])) == (0, 0)
    assert len(task.train) == len(labels["train"]) > 0
