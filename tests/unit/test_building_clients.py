import numpy as np
import pytest

from fedstil_mpi.data.building.clients import assign_clients
from fedstil_mpi.util.errors import InputError
from support.made_pools import made_pool, random_pool


def cameras_with(people_of):
    """A set in which each camera sees these people once each."""
    return {(person, camera): 1 for camera, people in enumerate(people_of) for person in people}


def holdings(pool, client):
    """client -> its (camera, person)."""
    return [set(zip(pool.cameras[client == c], pool.pids[client == c], strict=True)) for c in range(max(client) + 1)]


def cameras_of(pool, client):
    return [sorted({camera for camera, _ in held}) for held in holdings(pool, client)]


def test_every_camera_is_a_client_if_no_number_is_asked_for():
    pool = made_pool(cameras_with([[1, 2], [2, 3], [1, 3]]), cameras_with([[1]]))
    assert cameras_of(pool, assign_clients(pool, None, "merge")) == [[0], [1], [2], [3]]


def test_the_camera_with_fewest_people_joins_the_one_that_lacks_most_of_them():
    # Camera 2 has fewest people, 1 and 2: camera 0 has both, camera 1 lacks one, camera 3 lacks both.
    pool = made_pool(cameras_with([[1, 2, 3], [1, 3, 4], [1, 2], [3, 4, 5]]))
    assert cameras_of(pool, assign_clients(pool, 3, "merge")) == [[0], [1], [2, 3]]
    # Then cameras 0 and 1 have three each; 0 comes first. Camera 1 lacks person 2, cameras 2 and 3 lack none of them.
    assert cameras_of(pool, assign_clients(pool, 2, "merge")) == [[0, 1], [2, 3]]


def test_of_cameras_that_lack_as_many_the_one_with_fewer_people_is_joined():
    pool = made_pool(cameras_with([[1], [2, 3, 4], [5, 6]]))
    assert cameras_of(pool, assign_clients(pool, 2, "merge")) == [[1], [0, 2]]


def test_the_camera_with_most_people_is_cut_in_two():
    pool = made_pool(cameras_with([[1, 2], [1, 2, 3, 4, 5]]))
    people = [{person for _, person in held} for held in holdings(pool, assign_clients(pool, 3, "merge"))]
    assert people == [{0, 1}, {3, 4}, {0, 1, 2}]
    assert assign_clients(pool, 5, "merge").max() == 4


def test_merging_keeps_cameras_of_one_set_apart_and_mixes_sets():
    pool = made_pool(cameras_with([range(4), range(4)]), cameras_with([range(3), range(3)]))
    assert cameras_of(pool, assign_clients(pool, 2, "merge")) == [[0, 2], [1, 3]]


def test_a_client_a_set_keeps_sets_apart():
    pool = made_pool(cameras_with([range(4), range(4)]), cameras_with([range(3), range(3)]))
    for clients in (None, 2):
        assert cameras_of(pool, assign_clients(pool, clients, "set")) == [[0, 1], [2, 3]]


@pytest.mark.parametrize("seed", range(5))
def test_any_number_of_clients_up_to_that_of_the_people_has_images_each(seed):
    pool = random_pool(seed)
    for clients in range(1, len(np.unique(pool.pids)) + 1):
        client = assign_clients(pool, clients, "merge")
        assert client.dtype == np.int64
        assert np.unique(client).tolist() == list(range(clients))
        # Nobody's images at a camera are torn apart.
        assert sum(len(held) for held in holdings(pool, client)) == len(set.union(*holdings(pool, client)))


@pytest.mark.parametrize(
    ("clients", "how", "message"),
    [
        (4, "merge", "4 clients for 3 people: expected 1 to 3"),
        (0, "merge", "0 clients for 3 people"),
        (-1, "merge", "-1 clients"),
        (3, "set", "3 clients, one a set, but 2 sets with images: ask for 2 clients"),
        (0, "set", "0 clients, one a set"),
        (None, "merg", "clients by 'merg'; did you mean merge"),
    ],
)
def test_refused(clients, how, message):
    pool = made_pool(cameras_with([[1, 2]]), cameras_with([[1]]))
    with pytest.raises(InputError, match=message):
        assign_clients(pool, clients, how)


@pytest.mark.parametrize("how", ["merge", "set"])
def test_refused_without_images(how):
    with pytest.raises(InputError, match="no images for any client"):
        assign_clients(made_pool({}), None, how)
