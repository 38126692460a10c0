from dataclasses import replace

import numpy as np

from fedstil_mpi.data.building.pool import pool
from support import made_pools


def test_people_and_cameras_are_numbered_by_set_then_in_natural_order():
    made = made_pools.made_pool({("train/10", "c2"): 1, ("train/9", "c10"): 1}, {("9", "c2"): 1, ("009", "c2"): 1})
    assert dict(zip(made.sources, made.pids.tolist(), strict=True)) == {
        "a/c10/train/9_00001.jpg": 0,
        "a/c2/train/10_00000.jpg": 1,
        "b/c2/009_00001.jpg": 2,
        "b/c2/9_00000.jpg": 3,
    }
    assert (made.sets.tolist(), made.cameras.tolist()) == ([0, 0, 1, 1], [1, 0, 2, 2])
    assert made.sets.dtype == made.pids.dtype == made.cameras.dtype == made.times.dtype == np.int64


def test_numbers_may_be_longer_than_python_reads():
    long = "1" + "0" * 5000
    made = made_pools.made_pool({(key, "c"): 1 for key in (long, "9", "0" + long[:-1], "12")})
    assert dict(
        zip([source.split("/")[-1].split("_")[0] for source in made.sources], made.pids.tolist(), strict=True)
    ) == {
        "9": 0,
        "12": 1,
        "0" + long[:-1]: 2,
        long: 3,
    }


def test_sets_come_in_the_order_given_and_their_images_in_the_order_of_their_sources():
    images = made_pools.records({("1", "x"): 3, ("2", "w"): 2})
    first = pool({"z": images, "a": images[:1]})
    again = pool({"z": images[::-1], "a": images[:1]})
    assert first.sources[-1] == "a/x/1_00000.jpg"
    assert first.sources[:-1] == tuple(sorted(first.sources[:-1]))
    assert first.sources == again.sources
    for column in ("sets", "pids", "cameras", "times"):
        np.testing.assert_array_equal(getattr(first, column), getattr(again, column))


def test_an_unknown_time_is_minus_one():
    images = made_pools.records({("1", "x"): 2})
    assert pool({"a": [replace(images[0], time=None), images[1]]}).times.tolist() == [-1, 1]


def test_a_row_knows_its_set():
    made = made_pools.made_pool({("1", "x"): 1, ("2", "x"): 2}, {("1", "x"): 1})
    assert [made.label(row) for row in (3, 1)] == ["b", "a"]
