import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from fedstil_mpi.client.rehearsal import Memory, Samples, collided_labels, herd, share_out
from support.golden_files import golden


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def people(*pids: int, images: int = 5, first: int = 0) -> Samples:
    """Samples whose representation is their own number, counted from `first`."""
    labels = torch.tensor(pids).repeat_interleave(images)
    numbers = torch.arange(first, first + len(labels), dtype=torch.float32)[:, None]
    return Samples(numbers, labels, torch.unique(labels, return_inverse=True)[1])


def store(memory: Memory, samples: Samples, seed: int = 0) -> None:
    memory.store(samples, torch.randn(len(samples), 3, generator=rng(seed)))


def numbers(samples: Samples) -> list[int]:
    return samples.representations[:, 0].int().tolist()


@pytest.mark.parametrize("path", golden("f_herding"), ids=lambda path: path.stem)
@pytest.mark.parametrize(("repeat", "expected"), [(True, "chosen"), (False, "chosen_without_repeats")])
def test_golden_herding(path, repeat, expected):
    case = np.load(path, allow_pickle=False)
    for person, chosen in zip(case["persons"], case[expected], strict=True):
        rows = np.flatnonzero(case["person_ids"] == person)
        picks = herd(torch.from_numpy(case["features"][rows]), int(case["m"]), repeat=repeat)
        assert rows[picks].tolist() == [row for row in chosen.tolist() if row >= 0]


def test_herding_follows_the_running_mean():
    # The mean is 2.25. Nearest is 3; then (3 + 1) / 2; then (3 + 1 + 5) / 3 is nearer than (3 + 1 + 0) / 3.
    features = torch.tensor([[0.0], [3.0], [5.0], [1.0]])
    assert herd(features, 9) == [1, 3, 2, 0]
    assert herd(features, 2) == [1, 3]
    assert herd(features, 0) == herd(features[:0], 3) == []


def test_the_first_index_wins_a_tie():
    assert herd(torch.tensor([[1.0], [3.0]]), 1) == herd(torch.tensor([[3.0], [1.0]]), 1) == [0]


def test_repeats_fill_any_quota():
    features = torch.tensor([[0.0], [1.0], [5.0]])
    picks = herd(features, 20, repeat=True)
    assert len(picks) == 20
    assert len(set(picks)) < len(picks)
    assert features[picks].mean() == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("path", golden("m_rehearsal_labels"), ids=lambda path: path.stem)
def test_golden_collided_labels(path):
    case = np.load(path, allow_pickle=False)
    labels = collided_labels(torch.from_numpy(case["person"]), torch.from_numpy(case["class_index"]))
    assert labels.tolist() == case["ref_label"].tolist()


@pytest.mark.parametrize("path", golden("m_rehearsal_labels"), ids=lambda path: path.stem)
@pytest.mark.parametrize(("collide", "expected"), [(True, "ref_label"), (False, "person")])
def test_golden_memory_returns_true_persons_unless_it_collides(path, collide, expected):
    case = {key: torch.from_numpy(value) for key, value in np.load(path, allow_pickle=False).items()}
    memory = Memory(10**4, collide=collide)
    for task in case["task"].unique():
        rows = torch.nonzero(case["task"] == task)[:, 0]
        store(memory, Samples(rows[:, None].float(), case["person"][rows], case["class_index"][rows]))
    recalled = memory.recall()
    assert sorted(numbers(recalled)) == list(range(len(case["task"])))
    assert recalled.pids.tolist() == case[expected][numbers(recalled)].tolist()


def test_true_person_ids_after_three_tasks():
    memory, truth = Memory(30), {}
    for task, pids in enumerate([(7, 3), (11, 2, 5), (9, 3)]):
        samples = people(*pids, first=100 * task)
        truth |= dict(zip(numbers(samples), samples.pids.tolist(), strict=True))
        store(memory, samples, task)
    recalled = memory.recall()
    assert set(recalled.pids.tolist()) == set(memory.people) == {7, 3, 11, 2, 5, 9}
    assert recalled.pids.tolist() == [truth[number] for number in numbers(recalled)]


def counts(memory: Memory) -> dict[int, int]:
    return dict(Counter(memory.recall().pids.tolist()))


@pytest.mark.parametrize(
    ("places", "wanted", "given"),
    [
        (178, dict.fromkeys(range(91), 4), [1] * 4 + [2] * 87),
        (90, dict.fromkeys(range(91), 4), [0] + [1] * 90),
        (8, {0: 1, 1: 5, 2: 5}, [1, 3, 4]),  # what one person cannot use others get
        (20, {0: 1, 1: 5, 2: 5}, [1, 5, 5]),
        (3, {0: 0, 1: 0}, [0, 0]),
        (0, {0: 2}, [0]),
    ],
)
def test_places_are_shared_as_evenly_as_whole_numbers_allow(places, wanted, given):
    shares = share_out(places, wanted, {person: -person for person in wanted})  # the last comes first
    assert list(shares) == list(wanted)
    assert list(shares.values()) == given


def test_distinct_exemplars_fill_the_memory():
    memory, met = Memory(17), 0
    for task in range(5):
        store(memory, people(*range(met, met + 4), images=3 + task, first=1000 * task), task)
        met += 4
        recalled = memory.recall()
        assert len(set(numbers(recalled))) == len(recalled) == min(17, 3 * met)
        shares = counts(memory).values()
        assert max(shares) - min(shares) <= 1
    assert len(counts(memory)) == 17  # of 20 people


@pytest.mark.parametrize(("size", "kept"), [(90, [1] * 90), (91, [1] * 91), (178, [1] * 4 + [2] * 87)])
def test_a_memory_for_about_as_many_as_there_are_people_is_full(size, kept):
    memory = Memory(size)
    for task in range(13):
        store(memory, people(*range(7 * task, 7 * task + 7)))
    assert sorted(counts(memory).values()) == kept


def test_of_many_people_a_fair_sample_is_kept_and_the_seed_says_which():
    """Half of 24 people met in turn: as many early as late ones in the mean, others with another seed."""
    found = []
    for seed in (*range(30), 0):
        memory = Memory(12, seed=seed)
        for first in range(0, 24, 4):
            store(memory, people(*range(first, first + 4), images=2))
        found.append(set(counts(memory)))
    assert found[0] == found[-1] != found[1]
    assert np.mean([sum(person < 12 for person in kept) for kept in found]) == pytest.approx(6, abs=1)


def test_quota_is_at_most_the_images_there_are():
    memory = Memory(1000)
    store(memory, people(1, 2, images=3))
    assert sorted(numbers(memory.recall())) == [0, 1, 2, 3, 4, 5]


def test_repeats_fill_the_memory():
    memory = Memory(50, repeat=True)
    for task in range(3):
        store(memory, people(3 * task, 3 * task + 1, 3 * task + 2, images=2, first=100 * task))
        quota = math.ceil(50 / (3 * task + 3))
        assert torch.bincount(memory.recall().pids).tolist() == [quota] * (3 * task + 3)


def test_older_lists_are_cut_to_their_first_picks():
    memory = Memory(8)
    samples, features = people(1, 2), torch.randn(10, 3, generator=rng(4))
    memory.store(samples, features)
    before = numbers(memory.recall())
    assert before == herd(features[:5], 4) + [5 + pick for pick in herd(features[5:], 4)]
    store(memory, people(3, 4, first=50))
    assert numbers(memory.recall(without={3, 4})) == before[:2] + before[4:6]


def test_storing_a_person_again_replaces_its_exemplars():
    memory = Memory(6)
    store(memory, people(1, 2, images=3))
    store(memory, people(2, images=3, first=70))
    recalled = memory.recall()
    assert sorted(recalled.pids.tolist()) == [1, 1, 1, 2, 2, 2]
    assert sorted(numbers(recalled)) == [0, 1, 2, 70, 71, 72]


def test_nothing_to_recall():
    memory = Memory(5)
    assert memory.recall() is None
    store(memory, people(1, 2))
    assert memory.recall(without={1, 2}) is None


def test_samples_keep_their_rows_together():
    samples = people(4, 9, images=2)
    part = samples[[3, 0]]
    together = Samples.concatenate([part, samples])
    for field, row in (("representations", [3.0]), ("pids", 9), ("indices", 1)):
        values: Tensor = getattr(together, field)
        assert values[0].tolist() == row
        assert len(values) == len(together) == 6
