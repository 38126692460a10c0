from collections import Counter
from dataclasses import fields
from functools import cache
from itertools import product

import numpy as np
import pytest

from fedstil_mpi.data.building.clients import assign_clients
from fedstil_mpi.data.building.protocols import PROTOCOLS, Protocol, divide
from fedstil_mpi.data.building.tasks import assign_tasks
from fedstil_mpi.data.pack.manifest import ROLES
from fedstil_mpi.data.streams.base import SPLITS
from fedstil_mpi.util.errors import InputError
from support.golden_files import golden
from support.made_pools import made_pool, random_pool

CLIENTS, TASKS = 4, 3


@cache
def built(seed, name):
    """A pool of everything, each image's client and task, and how it is divided."""
    pool = random_pool(seed)
    client = assign_clients(pool, CLIENTS, "merge")
    task = assign_tasks(pool, client, TASKS, order="random", ratio=0.5, distance=3.0, seed=seed)
    return pool, client, task, divide(pool, client, task, CLIENTS, TASKS, Protocol(name=name), seed)


any_protocol = pytest.mark.parametrize("name", PROTOCOLS)


@pytest.fixture(params=product(range(4), PROTOCOLS), ids=str)
def any_stream(request):
    return built(*request.param)


@pytest.fixture(params=product(range(4), ["closed", "open"]), ids=str)
def sound_stream(request):
    """One without leaks."""
    return built(*request.param)


def one_client_a_camera(counts, **protocol):
    """One task, a client for each camera of a single set with so many images of each (person, camera)."""
    pool = made_pool(counts)
    clients = pool.cameras.max() + 1
    return pool, divide(pool, pool.cameras, np.zeros(len(pool), int), clients, 1, Protocol(**protocol), 0)


def sizes(pool, division, client=0):
    """How many images of each person a client has in its splits."""
    found = {split: Counter() for split in SPLITS}
    for row in np.flatnonzero(pool.cameras[division.rows] == client):
        found[ROLES[division.role[row]]][int(pool.pids[division.rows[row]])] += 1
    return [[found[split][person] for person in sorted(set(pool.pids.tolist()))] for split in SPLITS]


# What holds for every protocol.


def test_every_task_has_people_to_train_on_its_own_ones(any_stream):
    _, client, task, division = any_stream
    for number in range(CLIENTS * TASKS):
        for split in ("train", "query"):
            rows = division.rows[division.splits[split].of(number)]
            assert (client[rows] * TASKS + task[rows] == number).all()
        assert len(division.splits["train"].of(number))
    for role, split in enumerate(SPLITS):
        selection = division.splits[split]
        assert selection.rows.dtype == selection.offsets.dtype == np.int64
        assert (selection.offsets[0], selection.offsets[-1]) == (0, len(selection.rows))
        assert len(selection.offsets) == CLIENTS * TASKS + 1
        # Each is used by somebody, train and query images by nobody else.
        np.testing.assert_array_equal(np.unique(selection.rows), np.flatnonzero(division.role == role))
        if split != "gallery":
            assert len(np.unique(selection.rows)) == len(selection.rows)


def test_images_are_stored_by_client_task_role_person_and_source(any_stream):
    pool, client, task, division = any_stream
    rows = division.rows
    sources = [pool.sources[row] for row in rows]
    keys = list(zip(client[rows], task[rows], division.role, division.person, sources, strict=True))
    assert keys == sorted(set(keys))
    assert (division.rows.dtype, division.role.dtype) == (np.int64, np.uint8)
    for selection in division.splits.values():
        for number in range(CLIENTS * TASKS):
            assert (np.diff(selection.of(number)) > 0).all()


@any_protocol
@pytest.mark.parametrize("seed", range(4))
def test_people_who_are_trained_on_have_the_first_numbers(seed, name):
    pool, _, _, division = built(seed, name)
    pairs = set(zip(pool.pids[division.rows], division.person, strict=True))
    assert sorted(new for _, new in pairs) == list(range(len(set(pool.pids))))
    trained = np.unique(division.person[division.role == ROLES.index("train")])
    assert trained.tolist() == list(range(len(trained)))
    assert division.person.dtype == np.int64
    # "open" is the one that has others; on either side they keep the order of the pool.
    assert (len(trained) < len(pairs)) == (name == "open")
    for some in (True, False):
        numbers = [new for _, new in sorted(pairs) if (new < len(trained)) == some]
        assert numbers == sorted(numbers)


def test_cameras_are_known_but_for_a_set_of_one(any_stream):
    pool, _, _, division = any_stream
    single = pool.sets[division.rows] == 2
    assert (division.camera[single] == -1).all()
    pairs = set(zip(pool.cameras[division.rows[~single]], division.camera[~single], strict=True))
    assert sorted(new for _, new in pairs) == list(range(len(pairs))) == list(range(max(pool.cameras)))


@any_protocol
def test_the_same_seed_gives_the_same_arrays_and_another_one_others(name):
    pool, client, task, first = built(1, name)
    again, other = (divide(pool, client, task, CLIENTS, TASKS, Protocol(name=name), seed) for seed in (1, 2))
    for field in ("rows", "role", "person", "camera"):
        np.testing.assert_array_equal(getattr(first, field), getattr(again, field))
    for split in SPLITS:
        np.testing.assert_array_equal(first.splits[split].rows, again.splits[split].rows)
        np.testing.assert_array_equal(first.splits[split].offsets, again.splits[split].offsets)
    assert not np.array_equal(first.rows, other.rows)


# What holds without leaks.


def test_every_image_is_used_for_one_thing_only(sound_stream):
    pool, _, _, division = sound_stream
    assert sorted(division.rows) == list(range(len(pool)))


def test_what_anybody_trains_on_is_never_searched_for_or_in(sound_stream):
    _, _, _, division = sound_stream
    used = {split: set(division.rows[division.splits[split].rows].tolist()) for split in SPLITS}
    assert len(used["train"] | used["query"] | used["gallery"]) == sum(len(rows) for rows in used.values())


def test_every_query_has_its_person_in_the_gallery_seen_by_another_camera(sound_stream):
    _, _, _, division = sound_stream
    for number in range(CLIENTS * TASKS):
        gallery = division.splits["gallery"].of(number)
        for query in division.splits["query"].of(number):
            good = division.person[gallery] == division.person[query]
            junk = (division.camera[gallery] == division.camera[query]) & (division.camera[query] >= 0)
            assert (good & ~junk).any()


def test_a_task_searches_what_all_clients_hold_out_of_its_people(sound_stream):
    pool, client, task, division = sound_stream
    stored = np.flatnonzero(division.role == ROLES.index("gallery"))
    for number in range(CLIENTS * TASKS):
        people = set(pool.pids[client * TASKS + task == number])
        expected = [row for row in stored if pool.pids[division.rows[row]] in people]
        assert division.splits["gallery"].of(number).tolist() == expected


# closed


def test_closed_cuts_each_persons_images_by_the_shares_with_one_of_each_of_three():
    """Camera 1 sees everyone ten times, so that every query has a match there."""
    images = [1, 2, 3, 4, 5, 7, 10, 13, 100]
    counts = {(person, 0): count for person, count in enumerate(images)}
    pool, division = one_client_a_camera(counts | {(person, 1): 10 for person in range(len(images))})
    assert sizes(pool, division) == [
        [1, 1, 1, 2, 3, 4, 6, 8, 60],  # 0.6 * n rounded, but at most n - 2
        [0, 0, 1, 1, 1, 1, 2, 3, 20],  # 0.2 * n rounded, but at least 1 of three
        [0, 1, 1, 1, 1, 2, 2, 2, 20],
    ]


def test_closed_keeps_shares_that_leave_no_room_within_bounds():
    counts = {(person, camera): 3 + person for person in range(3) for camera in (0, 1)}
    pool, division = one_client_a_camera(counts, train=0.95, query=0.05)
    assert sizes(pool, division) == [[1, 2, 3], [1, 1, 1], [1, 1, 1]]
    pool, division = one_client_a_camera(counts, train=0.05, query=0.95)
    assert sizes(pool, division) == [[1, 1, 1], [1, 2, 3], [1, 1, 1]]


def test_closed_people_that_one_camera_sees_are_only_distractors():
    pool, division = one_client_a_camera({(0, 0): 10, (0, 1): 10, (1, 0): 10})
    assert sizes(pool, division) == [[6, 6], [2, 0], [2, 4]]


def test_closed_a_query_needs_a_gallery_image_at_the_other_camera():
    """A single image there is trained on; the second of two is in the gallery."""
    pool, division = one_client_a_camera({(0, 0): 10, (0, 1): 1, (1, 0): 10, (1, 1): 2})
    assert sizes(pool, division, client=0) == [[6, 6], [0, 2], [4, 2]]
    assert sizes(pool, division, client=1) == [[1, 1], [0, 0], [0, 1]]


def test_closed_another_camera_of_the_same_client_is_a_match():
    pool = made_pool({(0, 0): 10, (0, 1): 10, (1, 0): 10})
    nothing = np.zeros(len(pool), int)
    queries = Counter()
    for seed in range(40):
        division = divide(pool, nothing, nothing, 1, 1, Protocol(), seed)
        rows = division.rows[division.splits["query"].rows]
        assert (pool.pids[rows] == 0).all()
        queries[len(rows)] += 1
    assert max(queries) == 4  # all of 0.2 * 20, unless the gallery happens to be of one camera


def test_closed_the_images_of_a_set_with_one_camera_match_each_other():
    pool, division = one_client_a_camera({(person, 0): 10 for person in range(4)})
    assert sizes(pool, division) == [[6] * 4, [2] * 4, [2] * 4]
    assert (division.camera == -1).all()


# open


@pytest.mark.parametrize("seed", range(4))
def test_open_half_the_people_who_can_be_recognised_are_never_trained_on(seed):
    pool, client, _, division = built(seed, "open")
    seen_by = [len(set(pool.cameras[pool.pids == person])) for person in range(max(pool.pids) + 1)]
    one_camera_set = [pool.sets[pool.pids == person][0] == 2 for person in range(len(seen_by))]
    known = {p for p, cameras in enumerate(seen_by) if cameras > 1 or one_camera_set[p]}
    train = ROLES.index("train")
    trained = set(pool.pids[division.rows[division.role == train]])
    tested = set(pool.pids[division.rows[division.role != train]])
    assert trained | tested == set(pool.pids)
    assert not trained & tested
    assert tested <= known
    assert abs(len(tested) - len(known) / 2) <= 0.5
    for person in tested:
        for c in set(client[pool.pids == person]):
            roles = division.role[(pool.pids[division.rows] == person) & (client[division.rows] == c)]
            assert (roles == ROLES.index("gallery")).any()


def test_open_cuts_each_test_persons_images_with_one_of_each_of_two():
    images = [1, 2, 3, 4, 5, 7, 10, 100]
    counts = {(person, 0): count for person, count in enumerate(images)}
    counts |= {(person, 1): 10 for person in range(len(images))}
    trained = {(person, camera): 10 for person in range(100, 108) for camera in (0, 1)}
    queries = Counter()
    for seed in range(30):
        pool = made_pool(counts | trained)
        division = divide(pool, pool.cameras, np.zeros(len(pool), int), 2, 1, Protocol(name="open", query=0.1), seed)
        train, query, gallery = sizes(pool, division)
        for person in range(len(images)):
            if not train[person]:
                queries[person, query[person], gallery[person]] += 1
    # A quarter, 0.1 / (1 - 0.6), rounded, but at least one of two.
    assert {(p, q) for p, q, _ in queries} == {(0, 0), (1, 1), (2, 1), (3, 1), (4, 1), (5, 2), (6, 2), (7, 25)}
    assert all(q + g == images[p] for p, q, g in queries)


def test_open_trains_on_the_share_of_people_asked_for():
    counts = {(person, camera): 4 for person in range(20) for camera in (0, 1)}
    counts |= {(person, 0): 4 for person in range(20, 25)}  # not seen elsewhere: always trained on
    for share in (0.25, 0.9):
        _, division = one_client_a_camera(counts, name="open", train_people=share)
        assert len(set(division.person[division.role == ROLES.index("train")])) == 20 * share + 5


def test_open_tests_somebody_in_every_task_however_the_draw_falls():
    """Two cameras, three tasks of four people: half of twelve drawn at random leaves a task out in one of ten draws."""
    pool = made_pool({(person, camera): 4 for person in range(12) for camera in (0, 1)})
    for seed in range(40):
        division = divide(pool, pool.cameras, pool.pids % 3, 2, 3, Protocol(name="open"), seed)
        for role in ("train", "query"):
            assert (np.diff(division.splits[role].offsets) > 0).all()
        assert len(set(division.person[division.role == ROLES.index("query")])) in (6, 7)


# reference_code


@pytest.mark.parametrize("path", golden("n_builder_split"), ids=lambda path: path.stem)
def test_reference_golden(path):
    """Person p has n_images at client 0 and n_other_camera at client 1; only client 0's task is looked at."""
    case = np.load(path)
    train, query, gallery = case["split"].tolist()
    people = range(len(case["n_images"]))
    counts = {(person, 0): int(case["n_images"][person]) for person in people}
    counts |= {(person, 1): int(case["n_other_camera"][person]) for person in people}
    pool, division = one_client_a_camera(counts, name="reference_code", train=train, query=query, gallery=gallery)
    rows = {split: division.rows[division.splits[split].of(0)] for split in SPLITS}
    for split in SPLITS:
        assert len(np.unique(rows[split])) == len(rows[split])
        found = np.bincount(pool.pids[rows[split]], minlength=len(people))
        np.testing.assert_array_equal(found, case[f"n_{split}"])
    both = np.intersect1d(rows["train"], rows["query"])
    np.testing.assert_array_equal(np.bincount(pool.pids[both], minlength=len(people)), case["n_in_both"])


def test_reference_draws_the_galleries_from_the_other_clients_whatever_they_use_the_images_for():
    pool, division = one_client_a_camera(
        {(p, c): 10 for p in range(3) for c in range(3)}, name="reference_code", query=0.1
    )
    used = {client: division.rows[division.splits["gallery"].of(client)] for client in range(3)}
    for client, rows in used.items():
        assert Counter(zip(pool.pids[rows], pool.cameras[rows], strict=True)) == {
            (person, other): 7 for person in range(3) for other in range(3) if other != client
        }
    assert set(used[0][pool.cameras[used[0]] == 2]) != set(used[1][pool.cameras[used[1]] == 2]), "drawn but once"
    trained = division.rows[division.role == ROLES.index("train")]
    assert np.isin(used[0], trained).any()
    assert not np.isin(used[0], trained).all()


@pytest.mark.parametrize("seed", range(4))
def test_reference_stores_an_image_once_for_each_role(seed):
    _, _, _, division = built(seed, "reference_code")
    stored = list(zip(division.rows.tolist(), division.role.tolist(), strict=True))
    assert len(set(stored)) == len(stored)
    assert max(Counter(row for row, _ in stored).values()) == 3


# What is refused.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "close"}, "protocol 'close'; did you mean closed"),
        ({"train": 0.0}, "0.0 train and 0.2 query"),
        ({"query": 0.0}, "0.6 train and 0.0 query"),
        ({"train": 0.9}, "0.9 train and 0.2 query"),
        ({"train": float("nan")}, "nan train"),
        ({"train_people": 1.0}, "share of train people of 1.0"),
        ({"train_people": 0.0}, "share of train people of 0.0"),
        ({"gallery": 0.0}, "share of gallery images of 0.0"),
        ({"gallery": 1.1}, "share of gallery images of 1.1"),
    ],
)
def test_refused_protocols(settings, message):
    with pytest.raises(InputError, match=message):
        Protocol(**settings)


def test_every_setting_of_a_protocol_has_an_effect():
    pool, client, task, _ = built(0, "closed")
    changes = {"train": 0.4, "query": 0.4, "train_people": 0.7, "gallery": 0.4}
    assert {field.name for field in fields(Protocol)} == {"name", *changes}
    for setting, value in changes.items():
        name = {"train_people": "open", "gallery": "reference_code"}.get(setting, "closed")
        first, other = (
            divide(pool, client, task, CLIENTS, TASKS, Protocol(**kwargs), 0)
            for kwargs in ({"name": name}, {"name": name, setting: value})
        )
        assert not np.array_equal(first.role, other.role)


@pytest.mark.parametrize(
    ("counts", "name"),
    [
        ({(0, 0): 2, (0, 1): 2, (1, 0): 2, (1, 1): 2}, "closed"),  # too few images for a query
        ({(0, 0): 10, (1, 1): 10}, "closed"),  # nobody is seen twice
        ({(0, 0): 10, (1, 1): 10}, "open"),
        ({(0, 0): 10, (1, 1): 10}, "reference_code"),
        ({(0, 0): 1, (0, 1): 1, (1, 0): 1, (1, 1): 1}, "reference_code"),  # the share of one image, rounded down
    ],
)
def test_refused_without_anything_to_search(counts, name):
    with pytest.raises(InputError, match="no query finds its person"):
        one_client_a_camera(counts, name=name)


@pytest.mark.parametrize("seed", range(4))
def test_two_images_are_trained_on_in_every_task_however_small_the_share(seed):
    pool = random_pool(seed)
    client = assign_clients(pool, 2, "merge")
    task = assign_tasks(pool, client, 3, order="random", ratio=0.0, distance=0.0, seed=seed)
    made = divide(pool, client, task, 2, 3, Protocol(name="open", train_people=0.01), seed)
    assert (np.diff(made.splits["train"].offsets) > 1).all()
    assert len(made.splits["query"].rows)


def test_refused_with_less_than_a_batch_to_train_on():
    with pytest.raises(InputError, match="client 0, task 0 has 1 images to train on"):
        one_client_a_camera({(0, 0): 2, (0, 1): 2}, name="closed")
    pool = made_pool({(0, 0): 5, (0, 1): 5})
    with pytest.raises(InputError, match="client 0, task 1 has 0 images to train on"):
        divide(pool, pool.cameras, 0 * pool.cameras, 2, 2, Protocol(), 0)
