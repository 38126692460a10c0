"""The synthetic stream: who walks where, what is in which split, and that the pictures are hard but fair."""

import dataclasses
import time
import tracemalloc
from collections import Counter
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from fedstil_mpi.config.synthetic import COLOURS, SyntheticOptions
from fedstil_mpi.data.pack.export import write_folder
from fedstil_mpi.data.streams.base import Images, Task
from fedstil_mpi.data.streams.folder import FolderStream
from fedstil_mpi.data.streams.synthetic import SyntheticStream
from fedstil_mpi.data.synthetic import appearance, cameras, drifts, rendering
from fedstil_mpi.data.synthetic.drifts import Drifts
from fedstil_mpi.data.synthetic.people import People, Poses
from fedstil_mpi.util.errors import InputError

SMALL = SyntheticOptions(clients=3, people_per_task=4, train_images=3, warmup_people=6, warmup_images=5)
SPLITS = ("train", "query", "gallery")


def open_stream(options: SyntheticOptions = SMALL, seed: int = 1, tasks: int = 3) -> SyntheticStream:
    return SyntheticStream(options, seed, tasks=tasks, height=64, width=32)


@pytest.fixture(scope="module")
def small() -> SyntheticStream:
    return open_stream(seed=7)


@pytest.fixture(scope="module")
def tasks(small: SyntheticStream) -> dict[tuple[int, int], Task]:
    return {(c, t): small.task(c, t) for c in range(small.clients) for t in range(small.tasks)}


def stops(stream: SyntheticStream) -> dict[int, list[tuple[int, int]]]:
    """Person -> (task, client) of every visit, in time."""
    visits: dict[int, list[tuple[int, int]]] = {}
    for task in range(stream.tasks):
        for client in range(stream.clients):
            for person in stream.pids(client, task).tolist():
                visits.setdefault(person, []).append((task, client))
    return visits


def equal(left: Task, right: Task) -> bool:
    return all(
        np.array_equal(getattr(getattr(left, split), field), getattr(getattr(right, split), field))
        for split in SPLITS
        for field in ("pixels", "pids", "cameras")
    )


@pytest.mark.parametrize("walkers", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("clients", [2, 5])
def test_every_task_has_its_number_of_people(walkers: float, clients: int) -> None:
    stream = open_stream(SyntheticOptions(clients=clients, walkers=walkers), tasks=6)
    for client in range(clients):
        for task in range(stream.tasks):
            people = stream.pids(client, task)
            assert people.dtype == np.int64
            assert len(people) == 12
            assert (np.diff(people) > 0).all()
    assert sorted(stops(stream)) == list(range(len(stops(stream))))


def test_half_of_the_people_walk_on() -> None:
    stream = open_stream(SyntheticOptions(), seed=2, tasks=6)
    visits = stops(stream)
    walked = [
        any(task < later <= task + 2 and camera != client for later, camera in visits[person])
        for client in range(stream.clients)
        for task in range(stream.tasks - 1)
        for person in stream.pids(client, task).tolist()
    ]
    assert np.mean(walked) == pytest.approx(0.5, abs=0.04)
    assert max(map(len, visits.values())) > 2, "a walker may walk on again"


def test_walkers_go_next_door_one_or_two_tasks_later() -> None:
    steps = Counter(
        (later - task, (there - here) % 5)
        for visits in stops(open_stream(SyntheticOptions(), seed=3, tasks=10)).values()
        for (task, here), (later, there) in pairwise(visits)
    )
    assert set(steps) == {(1, 1), (1, 4), (2, 1), (2, 4)}


@pytest.mark.parametrize("clients", [4, 5])
def test_pairs_of_cameras_share_people_and_the_last_of_an_odd_number_nobody(clients: int) -> None:
    visits = stops(open_stream(SyntheticOptions(clients=clients, neighbours="pairs"), tasks=6))
    together = {frozenset(camera for _, camera in of_person) for of_person in visits.values()}
    alone = {frozenset({camera}) for camera in range(clients)}
    assert together - alone == {frozenset({0, 1}), frozenset({2, 3})}


def test_nobody_walks_without_walkers() -> None:
    stream = open_stream(dataclasses.replace(SMALL, walkers=0.0))
    assert [len(visits) for visits in stops(stream).values()] == [1] * (3 * 3 * 4)


def test_strangers_are_searched_and_never_trained_on() -> None:
    """And known people's images are what they are without them."""
    alone, stream = open_stream(SMALL), open_stream(dataclasses.replace(SMALL, strangers=2))
    known = len(stops(alone))
    met: Counter[int] = Counter()
    for client, number in np.ndindex(3, 3):
        task, usual = stream.task(client, number), alone.task(client, number)
        for split in SPLITS:
            images: Images = getattr(task, split)
            assert np.array_equal(images.pids, stream.labels(client, number)[split])
            of_known = images.select(images.pids < known)
            assert all(
                np.array_equal(*pair) for pair in zip(astuple(of_known), astuple(getattr(usual, split)), strict=True)
            )
            strange = images.select(images.pids >= known)
            assert len(strange) == (0 if split == "train" else 2 * 2)
            assert ((strange.cameras == client) == (split == "query")).all()
        met.update(strange.people.tolist())
    assert met == Counter(range(known, known + 3 * 3 * 2))


def astuple(images: Images) -> tuple[np.ndarray, ...]:
    return images.pixels, images.pids, images.cameras


def test_splits_hold_the_same_people(small: SyntheticStream, tasks: dict[tuple[int, int], Task]) -> None:
    counts = {"train": 3, "query": 2, "gallery": 2}
    for (client, number), task in tasks.items():
        for split, count in counts.items():
            images: Images = getattr(task, split)
            assert images.pixels.shape == (4 * count, 64, 32, 3)
            assert images.pixels.dtype == np.uint8
            assert images.pids.dtype == images.cameras.dtype == np.int64
            assert np.array_equal(images.pids, np.repeat(small.pids(client, number), count))
        assert (task.train.cameras == client).all()
        assert (task.query.cameras == client).all()


def test_gallery_is_taken_where_else_the_person_goes(
    small: SyntheticStream, tasks: dict[tuple[int, int], Task]
) -> None:
    visits, seen_elsewhere = stops(small), 0
    for (client, _), task in tasks.items():
        assert not (task.gallery.cameras == client).any()
        for person, camera in zip(task.gallery.pids.tolist(), task.gallery.cameras.tolist(), strict=True):
            others = {there for _, there in visits[person]} - {client}
            assert camera in others or not others
            seen_elsewhere += bool(others)
    assert seen_elsewhere > 0


def test_no_two_images_are_equal(small: SyntheticStream, tasks: dict[tuple[int, int], Task]) -> None:
    everything = [getattr(task, split).pixels for task in tasks.values() for split in SPLITS]
    warmup = small.warmup()
    assert warmup is not None
    pixels = np.concatenate([*everything, warmup.pixels])
    assert len({image.tobytes() for image in pixels}) == len(pixels) == 3 * 3 * 4 * (3 + 2 + 2) + 6 * 5


def test_warmup_spreads_its_people_over_its_cameras(small: SyntheticStream) -> None:
    warmup = small.warmup()
    assert warmup is not None
    assert np.array_equal(warmup.pids, np.repeat(np.arange(6), 5))
    for person in range(6):
        assert set(warmup.cameras[warmup.pids == person].tolist()) == {0, 1, 2, 3}
    assert open_stream(dataclasses.replace(SMALL, warmup_people=0)).warmup() is None


def test_order_of_asking_does_not_matter(tasks: dict[tuple[int, int], Task]) -> None:
    other = open_stream(seed=7)
    other.warmup()
    for client, task in ((2, 2), (0, 0), (1, 2), (1, 0), (2, 2)):
        assert equal(other.task(client, task), tasks[client, task])


def test_another_seed_draws_other_people(tasks: dict[tuple[int, int], Task]) -> None:
    other = open_stream(seed=8).task(0, 0)
    assert (other.train.pixels != tasks[0, 0].train.pixels).any(axis=(1, 2, 3)).all()


def test_folder_gives_the_same_pixels_back(small: SyntheticStream, tasks: dict, tmp_path) -> None:
    write_folder(small, tmp_path)
    folder = FolderStream(tmp_path, 64, 32)
    assert (folder.clients, folder.tasks) == (3, 3)
    for (client, number), task in tasks.items():
        read = folder.task(client, number)
        for split in SPLITS:
            assert labelled(getattr(read, split)) == labelled(getattr(task, split))
    with pytest.raises(InputError, match="is not empty"):
        write_folder(small, tmp_path)


def labelled(images: Images) -> Counter:
    """Images and labels, without order."""
    return Counter(
        (image.tobytes(), int(person), int(camera))
        for image, person, camera in zip(images.pixels, images.pids, images.cameras, strict=True)
    )


class Unasked(SyntheticStream):
    """Nobody is searched for in task 1."""

    def task(self, client: int, task: int) -> Task:
        full = super().task(client, task)
        none = Images(full.query.pixels[:0], full.query.pids[:0], full.query.cameras[:0])
        return Task(full.train, none, none) if task == 1 else full


def test_folder_keeps_splits_without_images(tmp_path) -> None:
    stream = Unasked(SMALL, 7, tasks=2, height=64, width=32)
    write_folder(stream, tmp_path)
    folder = FolderStream(tmp_path, 64, 32)
    assert (folder.clients, folder.tasks) == (3, 2)
    for client in range(3):
        task = folder.task(client, 1)
        assert (len(task.train), len(task.query), len(task.gallery)) == (4 * 3, 0, 0)
        assert labelled(folder.task(client, 0).gallery) == labelled(stream.task(client, 0).gallery)


@pytest.mark.parametrize(("name", "value"), [("tasks", 0), ("height", 31), ("width", 15)])
def test_sizes_that_show_no_people_are_refused(name: str, value: int) -> None:
    sizes = {"tasks": 3, "height": 64, "width": 32} | {name: value}
    with pytest.raises(InputError, match=f"{name} is {value}, expected {value + 1} or more"):
        SyntheticStream(SMALL, 1, **sizes)


def stripe_rank1(stream: SyntheticStream, numbers: tuple[int, ...]) -> float:
    """Rank-1 of a matcher that knows colours only: 8 x 8 x 8 histograms of six stripes around the person, L1."""
    hits = []
    for client in range(stream.clients):
        for number in numbers:
            task = stream.task(client, number)
            query, gallery = stripes(task.query.pixels), stripes(task.gallery.pixels)
            distances = np.abs(query[:, None] - gallery[None]).sum(axis=2)
            hits.append(task.gallery.pids[distances.argmin(axis=1)] == task.query.pids)
    return float(np.mean(hits))


def stripes(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[1:3]
    levels = pixels[:, : height // 6 * 6, width // 4 : 3 * width // 4] // np.uint8(32)
    codes = (levels * np.array([64, 8, 1])).sum(axis=3).reshape(len(pixels), 6, -1)
    return np.stack([[np.bincount(stripe, minlength=512) for stripe in image] for image in codes]).reshape(
        len(pixels), -1
    )


def test_colours_alone_do_not_tell_people_apart() -> None:
    options = SyntheticOptions(train_images=1)
    hard = stripe_rank1(open_stream(options, tasks=4), (0, 3))
    assert 1.5 / 12 < hard < 0.5
    # The people themselves are told apart where all cameras see alike: it is the cameras that make it hard.
    plain = dataclasses.replace(options, camera_strength=0.0, drift=0.0, occlusion=0.0)
    assert stripe_rank1(open_stream(plain, tasks=4), (0, 3)) > hard + 0.2


def test_clothes_come_in_few_colours() -> None:
    draws = np.random.default_rng(0).random((200, appearance.PERSON_DRAWS), np.float32)
    people = appearance.identities(draws, colours=5, jitter=0.0, winter=np.zeros(200, np.float32))
    upper, accent = np.unique(people.upper, axis=0), people.accent
    assert len(upper) == 5
    assert (np.abs(people.upper - accent).max(axis=1) > 0.1).all(), "a texture must show"


def figures(count: int) -> tuple[People, Poses]:
    """People without obstacles, in the middle of the image, heading anywhere."""
    generator = np.random.default_rng(5)
    draws = [
        generator.random((count, n), np.float32)
        for n in (appearance.PERSON_DRAWS, appearance.CAMERA_DRAWS, appearance.POSE_DRAWS)
    ]
    people = appearance.identities(draws[0], colours=7, jitter=0.04, winter=np.zeros(count, np.float32))
    poses = appearance.poses(draws[1], draws[2], strength=1.0, occlusion=np.full(count, 0.2, np.float32), aspect=0.5)
    obstacle = np.tile(np.array([0, -1, 0, 1], np.float32), (count, 1))
    return people, dataclasses.replace(poses, middle=np.zeros(count, np.float32), obstacle=obstacle)


def test_turning_the_other_way_mirrors_the_picture() -> None:
    people, poses = figures(60)
    phases = people.phases * np.array([1, -1], np.float32)
    people_mirrored = dataclasses.replace(people, bag_side=-people.bag_side, phases=phases)
    poses_mirrored = dataclasses.replace(poses, heading=-poses.heading, swing=-poses.swing)
    pictures = [np.full((60, 3, 64, 32), 0.5, np.float32) for _ in range(2)]
    rendering.draw(pictures[0], people, poses)
    rendering.draw(pictures[1], people_mirrored, poses_mirrored)
    np.testing.assert_allclose(pictures[1], pictures[0][..., ::-1], atol=1e-3)
    assert (np.abs(pictures[0] - pictures[0][..., ::-1]).max(axis=(1, 2, 3)) > 0.05).mean() > 0.9


def test_a_picture_does_not_depend_on_its_batch() -> None:
    people, poses = figures(9)
    together = np.full((9, 3, 64, 32), 0.5, np.float32)
    rendering.draw(together, people, poses)
    for i in range(9):
        alone = np.full((1, 3, 64, 32), 0.5, np.float32)
        rendering.draw(alone, people[i : i + 1], poses[i : i + 1])
        np.testing.assert_allclose(alone[0], together[i], atol=1e-4)


def test_a_camera_without_faults_records_the_scene() -> None:
    scene = np.random.default_rng(0).random((3, 3, 64, 32), np.float32)
    none, pairs = np.zeros(3, np.float32), np.zeros((3, 2), np.float32)
    perfect = cameras.Conditions(
        light=pairs,
        blur=none,
        matrix=np.tile(np.eye(3, dtype=np.float32), (3, 1, 1)),
        offset=np.zeros((3, 3), np.float32),
        tone=none,
        noise=none,
    )
    silence = np.zeros_like(scene)
    recorded = cameras.photograph(scene.copy(), perfect, silence)
    assert np.abs(recorded - 255 * scene.transpose(0, 2, 3, 1)).max() <= 0.501
    # Blur moves light around but leaves an even surface as it is.
    even = np.full_like(scene, 0.4)
    blurred = cameras.photograph(even, dataclasses.replace(perfect, blur=none + 0.2), silence)
    assert (blurred == 102).all()


def drifting(count: int, **kinds: np.ndarray) -> Drifts:
    none = np.zeros(count, np.float32)
    return Drifts(**{kind: kinds.get(kind, none) for kind in Drifts._fields})


def test_evening_falls_slowly_and_only_with_drift() -> None:
    traits = np.random.default_rng(1).random((1, appearance.CAMERA_DRAWS), np.float32).repeat(21, axis=0)
    evening = np.linspace(0, 1, 21, dtype=np.float32)
    matrix = appearance.conditions(traits, 1.0, drifting(21, evening=evening)).matrix.reshape(21, -1)
    change = np.linalg.norm(matrix - matrix[0], axis=1)
    assert (np.diff(change) > 0).all()
    assert np.diff(change).max() < 3 * change[-1] / 20
    still = appearance.conditions(traits, 1.0, drifting(21)).matrix
    assert (still == still[0]).all()


def test_cameras_of_no_strength_see_alike() -> None:
    traits = np.random.default_rng(1).random((8, appearance.CAMERA_DRAWS), np.float32)
    conditions = appearance.conditions(traits, 0.0, drifting(8))
    for field in dataclasses.fields(conditions):
        values = getattr(conditions, field.name)
        assert (values == values[0]).all(), field.name


def test_haze_mixes_the_scene_with_its_own_grey() -> None:
    traits = np.random.default_rng(1).random((4, appearance.CAMERA_DRAWS), np.float32)
    scene = np.random.default_rng(2).random((4, 3), np.float32)

    def seen(depth: float, colours: np.ndarray) -> np.ndarray:
        conditions = appearance.conditions(traits, 1.0, drifting(4, haze=np.full(4, depth, np.float32)))
        return np.einsum("bij,bj->bi", conditions.matrix, colours) + conditions.offset

    grey = np.full_like(scene, appearance.AIRLIGHT)
    through = 0.25 * seen(0.0, scene) + 0.75 * seen(0.0, grey)
    np.testing.assert_allclose(seen(np.log(4), scene), through, atol=1e-5)
    np.testing.assert_allclose(seen(2.0, grey), seen(0.0, grey), atol=1e-5)


def test_cameras_wear_at_their_own_pace_and_none_gets_better() -> None:
    traits = np.random.default_rng(1).random((50, appearance.CAMERA_DRAWS), np.float32)
    new, used, worn = (
        appearance.conditions(traits, 1.0, drifting(50, wear=np.full(50, wear, np.float32))) for wear in (0.0, 0.5, 1.0)
    )
    for before, after in pairwise((new, used, worn)):
        assert (after.noise > before.noise).all()
        assert (after.blur >= before.blur).all()
    gained = worn.noise - new.noise
    assert gained.max() > 1.5 * gained.min()
    assert worn.blur.mean() > 2 * new.blur.mean()
    assert worn.noise.mean() > 2 * new.noise.mean()


@pytest.mark.parametrize(
    ("course", "six", "three"),
    [
        ("gradual", [0, 0.2, 0.4, 0.6, 0.8, 1], [0, 0.5, 1]),
        ("sudden", [0, 0, 0, 1, 1, 1], [0, 0, 1]),
        ("recurring", [0, 1, 0, 1, 0, 1], [0, 1, 0]),
    ],
)
def test_courses_of_a_drift(course: str, six: list[float], three: list[float]) -> None:
    for expected in (six, three, [0, 1], [0]):
        np.testing.assert_allclose(drifts.progress(course, len(expected)), expected)


KINDS = ("drift", "weather", "crowding", "wardrobe", "wear")
STILL = SyntheticOptions(
    clients=2,
    people_per_task=16,
    walkers=0.0,
    train_images=2,
    query_images=1,
    gallery_images=1,
    drift=0.0,
    warmup_people=3,
)


@cache
def trained(**options: float | str) -> np.ndarray:
    """The training pictures of a client with four tasks, float64 [4, n, height, width, 3]."""
    stream = open_stream(dataclasses.replace(STILL, **options), tasks=4)
    return np.stack([stream.task(1, task).train.pixels for task in range(4)]).astype(float)


@pytest.fixture(scope="module")
def still() -> np.ndarray:
    return trained()


def changes(pictures: np.ndarray, still: np.ndarray) -> np.ndarray:
    """How much drift changed, by task: mean absolute difference in grey levels."""
    return np.abs(pictures - still).mean(axis=(1, 2, 3, 4))


@pytest.mark.parametrize("kind", KINDS)
def test_every_drift_begins_at_nothing_and_grows_with_its_strength(kind: str, still: np.ndarray) -> None:
    weak, strong = (changes(trained(**{kind: strength}), still) for strength in (0.5, 1.0))
    assert weak[0] == strong[0] == 0
    assert weak[-1] > 0
    assert (strong[1:] > 1.2 * weak[1:]).all()
    if kind != "weather":
        assert (np.diff(strong) > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_recurring_drift_goes_away_again(kind: str, still: np.ndarray) -> None:
    change = changes(trained(**{kind: 1.0, "drift_course": "recurring"}), still)
    if kind == "weather":  # goes its own way
        assert np.array_equal(change, changes(trained(weather=1.0), still))
    else:
        assert change[0] == change[2] == 0
        assert min(change[1], change[3]) > 1


def test_each_kind_of_drift_looks_like_what_it_is(still: np.ndarray) -> None:
    last = still[-1]
    assert trained(drift=1.0)[-1].mean() < 0.9 * last.mean()
    assert trained(wardrobe=1.0)[-1].mean() < last.mean()
    hazy, sky = trained(weather=2.0), drifts.weather(1, 4)
    spreads = hazy.std(axis=(2, 3)).mean(axis=(1, 2)) / still.std(axis=(2, 3)).mean(axis=(1, 2))
    assert np.array_equal(spreads.argsort(), (-sky).argsort())
    grain = [np.abs(np.diff(pictures[-1], axis=2)).mean() for pictures in (still, trained(wear=1.0))]
    assert grain[1] > 1.2 * grain[0]


def test_crowds_hide_ever_more_images_and_the_same_ones(still: np.ndarray) -> None:
    full = trained(crowding=1.0, occlusion=0.0)[-1]
    half = trained(crowding=0.5, occlusion=0.0)[-1]
    clear = trained(occlusion=0.0)[-1]
    hidden, hidden_by_half = ((pictures != clear).any(axis=(1, 2, 3)) for pictures in (full, half))
    assert hidden.all()
    assert 0.3 < hidden_by_half.mean() < 0.7
    assert np.array_equal(half[hidden_by_half], full[hidden_by_half])


def test_the_config_knows_how_many_colours_there_are() -> None:
    assert len(appearance.PALETTE) == COLOURS


def test_winter_clothes_are_dark_and_long() -> None:
    draws = np.random.default_rng(0).random((300, appearance.PERSON_DRAWS), np.float32)
    summer, winter = (
        appearance.identities(draws, colours=7, jitter=0.0, winter=np.full(300, share, np.float32)) for share in (0, 1)
    )
    assert len(np.unique(summer.upper, axis=0)) == 7
    assert {tuple(colour) for colour in [*winter.upper, *winter.lower]} == {
        tuple(appearance.PALETTE[i]) for i in (0, 2)
    }
    assert (winter.sleeve == 1).all()
    for field in ("shoes", "bag_colour", "texture", "stature", "skin", "bag"):
        assert np.array_equal(getattr(summer, field), getattr(winter, field))


def test_walkers_wear_what_they_were_first_seen_in() -> None:
    options = dataclasses.replace(STILL, walkers=1.0, camera_strength=0.0, wardrobe=1.0, drift_course="sudden")
    dressed, plain = open_stream(options, tasks=4), open_stream(dataclasses.replace(options, wardrobe=0.0), tasks=4)
    visits, late = stops(dressed), 0
    for task in (2, 3):
        pairs = dressed.task(0, task).train, plain.task(0, task).train
        changed = (pairs[0].pixels != pairs[1].pixels).any(axis=(1, 2, 3))
        for person in dressed.pids(0, task).tolist():
            if visits[person][0][0] < 2:
                assert not changed[pairs[0].pids == person].any()
                late += 1
    assert late > 0


def test_the_server_took_its_images_before_any_drift() -> None:
    drifted = open_stream(dataclasses.replace(STILL, **dict.fromkeys(KINDS, 1.0))).warmup()
    before = open_stream(STILL).warmup()
    assert drifted is not None
    assert before is not None
    assert np.array_equal(drifted.pixels, before.pixels)


GOLDEN = [[101.15, 87.28, 89.45], [98.38, 90.43, 96.88], [108.25, 86.59, 67.77]]
"""Means of the channels of three default pictures, in grey levels, from before there were more kinds of drift than one."""


def test_default_pictures_are_those_that_results_were_measured_on() -> None:
    stream = SyntheticStream(SyntheticOptions(), 1, tasks=6, height=64, width=32)
    task = stream.task(2, 5)
    pixels = np.stack([task.train.pixels[0], task.query.pixels[11], task.gallery.pixels[23]])
    assert len(stops(stream)) == 210
    np.testing.assert_allclose(pixels.mean(axis=(1, 2)), GOLDEN, atol=0.05)


def test_a_thousand_clients_cost_no_more_than_their_walks() -> None:
    peaks = {}
    for clients in (5, 1000):
        tracemalloc.start()
        start = time.perf_counter()
        stream = open_stream(SyntheticOptions(clients=clients), tasks=2)
        for client in range(clients):
            assert len(stream.labels(client, 1)["train"]) == 60
        stream.task(0, 0)  # what is made for the first picture is kept
        opened = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        held = tracemalloc.get_traced_memory()[0]
        task = stream.task(clients - 1, 1)
        peaks[clients] = tracemalloc.get_traced_memory()[1] - held
        tracemalloc.stop()
        assert time.perf_counter() - start < 20
        assert opened < 10e6
        assert np.array_equal(np.unique(task.train.pids), stream.pids(clients - 1, 1))
    assert peaks[1000] < 1.2 * peaks[5]
