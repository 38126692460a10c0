from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from fedstil_mpi.data.building.clients import assign_clients
from fedstil_mpi.data.building.pool import pool
from fedstil_mpi.data.building.tasks import assign_tasks
from fedstil_mpi.util.errors import InputError
from support.made_pools import made_pool, random_pool, records


def tasks_of(made, client=None, tasks=2, order="time", ratio=0.0, distance=3.0, seed=0):
    """Person -> task, for every client."""
    client = np.zeros(len(made), np.int64) if client is None else client
    task = assign_tasks(made, client, tasks, order=order, ratio=ratio, distance=distance, seed=seed)
    assert task.dtype == np.int64
    met = {}
    for row, key in enumerate(zip(client.tolist(), made.pids.tolist(), strict=True)):
        assert met.setdefault(key, task[row]) == task[row], "a person in two tasks of a client"
    return [
        {person: int(task) for (seen_by, person), task in met.items() if seen_by == c} for c in range(max(client) + 1)
    ]


def queue(people, images=1):
    """One camera that sees people 0, 1, 2, ... one after another."""
    return made_pool({(person, 0): images for person in range(people)})


@pytest.mark.parametrize("order", ["random", "time"])
@pytest.mark.parametrize(("ratio", "distance"), [(0, 3.0), (0.5, 3.0), (1, 1.0), (1.0, float("inf"))])
def test_every_task_exists_and_sizes_differ_by_at_most_one_person(order, ratio, distance):
    for people, tasks in ((21, 10), (10, 10), (7, 1), (50, 6), (19, 10), (4, 3)):
        (task_of,) = tasks_of(queue(people), tasks=tasks, order=order, ratio=ratio, distance=distance, seed=people)
        sizes = Counter(task_of.values())
        assert set(sizes) == set(range(tasks))
        assert sorted(sizes.values()) == sorted(len(part) for part in np.array_split(np.arange(people), tasks))


@pytest.mark.parametrize("order", ["random", "time"])
@pytest.mark.parametrize("seed", range(4))
def test_everyone_that_a_client_sees_has_one_task_there(order, seed):
    made = random_pool(seed)
    client = assign_clients(made, 4, "merge")
    for task_of in tasks_of(made, client, tasks=5, order=order, ratio=0.5, seed=seed):
        assert set(task_of.values()) == set(range(5))


def test_without_mixing_people_come_in_the_order_of_their_first_images():
    made = made_pool({(3, 0): 1, (1, 0): 5, (4, 0): 1, (2, 0): 1, (0, 0): 1})
    assert tasks_of(made, tasks=5) == [{3: 0, 1: 1, 4: 2, 2: 3, 0: 4}]
    (task_of,) = tasks_of(queue(10), tasks=3)
    assert [task_of[person] for person in range(10)] == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_the_first_image_is_the_earliest_image_not_the_first_row():
    seen = records({(0, 0): 1, (1, 0): 1, (2, 0): 2})
    made = pool({"a": [replace(s, time=time) for s, time in zip(seen, (7, 5, 9, 2), strict=True)]})
    assert tasks_of(made, tasks=3) == [{2: 0, 1: 1, 0: 2}]


def test_clocks_of_different_cameras_need_not_agree():
    """Camera 1's clock begins after camera 0's has ended, but what counts is how far down a camera's list somebody is."""
    camera_0 = {(0, 0): 1, (1, 0): 1, (2, 0): 1, (3, 0): 1}  # at 1/8, 3/8, 5/8 and 7/8
    camera_1 = {(4, 1): 1, (3, 1): 1, (1, 1): 1, (5, 1): 1}
    (task_of,) = tasks_of(made_pool(camera_0 | camera_1), tasks=6)
    # Soonest at either camera: 0 and 4 at 1/8, 1 (by camera 0) and 3 (by camera 1) at 3/8, 2 at 5/8, 5 at 7/8.
    assert sorted(task_of, key=task_of.__getitem__) == [0, 4, 1, 3, 2, 5]


def test_in_random_order_somebody_comes_by_at_similar_times_everywhere():
    made = made_pool({(person, camera): 1 for camera in (0, 1) for person in range(30)})
    first, second = tasks_of(made, assign_clients(made, None, "merge"), tasks=5, order="random", seed=3)
    assert first == second
    assert tasks_of(made, made.cameras, tasks=5, order="random", seed=4)[0] != first
    assert first != tasks_of(made, made.cameras, tasks=5)[0]


def test_the_same_seed_gives_the_same_tasks_and_another_one_others():
    made = random_pool(1)
    client = assign_clients(made, 4, "merge")
    for order in ("random", "time"):
        first, again, other = (tasks_of(made, client, 5, order, 0.5, 3.0, seed) for seed in (1, 1, 2))
        assert first == again != other


def test_a_client_is_mixed_regardless_of_the_others():
    made = made_pool({(person, camera): 1 for camera in (0, 1) for person in range(30)})
    alone = made_pool({(person, 0): 1 for person in range(30)})
    both = tasks_of(made, made.cameras, tasks=3, ratio=0.5)
    assert both[0] == tasks_of(alone, tasks=3, ratio=0.5)[0]
    assert both[0] != both[1]


def test_two_people_of_different_tasks_change_places_each_pair_equally_often():
    # Ten people a task: one swap of people (0.1 * 10), none of tasks (0.1 * 2). They are 10 to 15 places apart.
    valid = {(x, y) for x in range(20) for y in range(20) if 10 <= y - x <= 15}
    drawn = Counter()
    for seed in range(900):
        (task_of,) = tasks_of(queue(20), ratio=0.1, distance=1.5, seed=seed)
        (late,) = [person for person in range(10) if task_of[person] == 1]
        (early,) = [person for person in range(10, 20) if task_of[person] == 0]
        drawn[late, early] += 1
    assert set(drawn) == valid
    # 45 pairs, 20 times each on average: the sum of squares is chi-square with 44 degrees of freedom, 99.99 % < 90.
    assert sum((count - 20) ** 2 / 20 for count in drawn.values()) < 90


def test_two_tasks_at_most_the_distance_apart_change_places():
    # Three people a task: no swap of people (floor(0.3 * 3) = 0), one of tasks (floor(0.3 * 4) = 1).
    drawn = Counter()
    for seed in range(200):
        (task_of,) = tasks_of(queue(12), tasks=4, ratio=0.3, distance=2.5, seed=seed)
        assert all(task_of[person] == task_of[person // 3 * 3] for person in range(12))
        drawn[tuple(task_of[block * 3] for block in range(4))] += 1
    assert set(drawn) == {(1, 0, 2, 3), (0, 2, 1, 3), (0, 1, 3, 2), (2, 1, 0, 3), (0, 3, 2, 1)}
    assert min(drawn.values()) > 15


@pytest.mark.parametrize(
    ("people", "tasks", "ratio", "distance"),
    [(5, 1, 1.0, 3.0), (20, 2, 1.0, 0.5), (20, 2, 1e-9, 3.0), (20, 2, 1.0, 0.0), (20, 2, 0.0, 3.0), (3, 3, 0.3, 9.0)],
)
def test_mixing_that_is_not_possible_leaves_everyone_in_place(people, tasks, ratio, distance):
    made = queue(people)
    assert tasks_of(made, tasks=tasks, ratio=ratio, distance=distance) == tasks_of(made, tasks=tasks)


def test_time_is_refused_for_a_set_that_does_not_tell_it():
    timeless = [replace(seen, time=None) for seen in records({(1, 0): 1, (2, 0): 1})]
    made = pool({"market": records({(1, 0): 1, (2, 0): 1}), "stills": timeless})
    with pytest.raises(InputError, match=r"set stills has no times of its images.* random order"):
        tasks_of(made)
    tasks_of(made, order="random")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tasks": 4}, "client 1 sees 3 people: expected one for each of 4 tasks"),
        ({"tasks": 0}, "0 tasks; expected at least 1"),
        ({"order": "times"}, "order 'times'; did you mean time"),
        ({"ratio": -0.1}, "ratio -0.1"),
        ({"ratio": 1.1}, "ratio 1.1"),
        ({"ratio": float("nan")}, "ratio nan"),
        ({"distance": -1.0}, "distance -1.0"),
        ({"distance": float("nan")}, "distance nan"),
    ],
)
def test_refused(changed, message):
    made = made_pool({(person, camera): 1 for camera, people in enumerate((5, 3)) for person in range(people)})
    with pytest.raises(InputError, match=message):
        tasks_of(made, made.cameras, **changed)
