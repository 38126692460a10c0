import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fedstil_mpi.methods.fedstil import relevance
from fedstil_mpi.methods.fedstil.attention import Weights, attention, reference_code_relevance
from fedstil_mpi.methods.fedstil.history import History, TaskRecord
from fedstil_mpi.methods.fedstil.mixing import Attention
from fedstil_mpi.methods.fedstil.relevance import MEASURES
from support.golden_files import golden

KINDS = [*MEASURES, "reference_code"]


def token_memories(case) -> list[list[Tensor]]:
    return [
        [torch.from_numpy(token) for token in tokens[:length]]
        for tokens, length in zip(case["tokens"], case["lengths"], strict=True)
    ]


def history(kind: str, clients: int = 4, seed: int = 0, tasks: tuple[int, ...] = (3, 1, 2, 2)) -> History:
    """Clients with some people in common and random non-negative tokens."""
    shape = (5, 20) if kind == "prototypes" else (20,)
    generator = torch.Generator().manual_seed(seed)
    noted = History.empty(clients)
    for client in range(clients):
        for task in range(tasks[client]):
            people = torch.randperm(12, generator=generator)[:5].tolist()
            tokens = [torch.rand(*shape, generator=generator) for _ in range(2)]
            noted.note(client, True, frozenset(people), tokens[0])
            noted.note(client, False, frozenset(), tokens[1])
            noted.uploads[client] += tokens
            assert len(noted.tasks[client]) == task + 1
    return noted


def matrix(noted: History, kind: str, tau: float = 0.3, forgetting: float = 0.7, **options: float) -> Tensor:
    keys = {"self_weight": None, "mean_share": 0.0, "step": 2} | options
    server = Attention(len(noted.tasks), kind, tau, forgetting, **keys)
    server.history = noted
    return server.rows(range(len(noted.tasks)))


def similarity_of(measure: str, noted: History, forgetting: float) -> Tensor:
    return MEASURES[measure](noted, forgetting, range(len(noted.tasks)))


def mixed_by(scores: Tensor, mean_score: float, own: float, seen: list[int]) -> Tensor:
    """Of all clients."""
    return attention(scores, mean_score, own, seen, range(len(scores))).rows(seen)


def reordered(noted: History, order: list[int]) -> History:
    return History([noted.tasks[i] for i in order], [noted.uploads[i] for i in order])


@pytest.mark.parametrize("path", golden("a_relevance"), ids=lambda path: path.stem)
def test_golden_relevance_share_and_weights(path):
    case = np.load(path, allow_pickle=False)
    uploads = token_memories(case)
    for s, step in enumerate(case["steps"]):
        for d, decay in enumerate(case["decays"]):
            relevance, share, weights = reference_code_relevance(uploads, int(step), float(decay))
            np.testing.assert_allclose(relevance, case["relevance"][s, d], rtol=1e-3)
            np.testing.assert_allclose(share, case["share"][s, d], rtol=1e-3)
            np.testing.assert_allclose(weights, case["weights"][s, d], rtol=1e-3)


@pytest.mark.parametrize("path", golden("a_relevance"), ids=lambda path: path.stem)
def test_golden_divergence(path):
    """With one token a client the relevance is 1 / (1e-8 + KL), so that it shows the divergence of every token."""
    case = np.load(path, allow_pickle=False)
    uploads = token_memories(case)
    for i, mine in enumerate(uploads):
        for j, theirs in enumerate(uploads):
            for age, token in enumerate(theirs if i != j else []):
                relevance = reference_code_relevance([[mine[-1]], [token]], 1, 1.0)[0]
                np.testing.assert_allclose(1 / relevance[0, 1] - 1e-8, case["kl"][i, j, age], rtol=1e-4, atol=1e-6)


def test_reference_share_of_the_receiver_is_always_one_nth():
    _, share, weights = reference_code_relevance(history("reference_code").uploads, 3, 0.8)
    torch.testing.assert_close(share.diagonal(), torch.full((4,), 0.25, dtype=torch.float64))
    assert (weights > math.exp(-0.75) / 4).all()  # the second softmax leaves them nearly even


@pytest.mark.parametrize("kind", KINDS)
def test_rows_sum_to_1(kind):
    weights = matrix(history(kind), kind)
    assert weights.shape == (4, 4)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(4, dtype=weights.dtype))


@pytest.mark.parametrize("kind", KINDS)
def test_identical_clients_get_identical_weights(kind):
    noted = reordered(history(kind), [0, 1, 2, 1])
    weights = matrix(noted, kind)
    torch.testing.assert_close(weights[[0, 2], 1], weights[[0, 2], 3])
    torch.testing.assert_close(weights[1, [0, 2]], weights[3, [0, 2]])
    torch.testing.assert_close(weights[1, 3], weights[3, 1])
    torch.testing.assert_close(weights[1, 1], weights[3, 3])
    everyone = matrix(reordered(history(kind), [2, 2, 2]), kind)
    torch.testing.assert_close(everyone, torch.full_like(everyone, 1 / 3))


@pytest.mark.parametrize("kind", KINDS)
def test_permuting_clients_permutes_the_weights(kind):
    order = [2, 0, 3, 1]
    weights = matrix(history(kind), kind)
    torch.testing.assert_close(matrix(reordered(history(kind), order), kind), weights[order][:, order])
    assert kind == "uniform" or weights.std() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_alone_keeps_its_own(kind):
    assert matrix(history(kind, 1), kind).tolist() == [[1.0]]


def test_attention_by_hand():
    log2, log4, none = math.log(2), math.log(4), -math.inf
    scores = torch.tensor([[9.0, log2, 0.0], [0.0, 9.0, 0.0], [1.0, 1.0 + log4, 9.0]])
    expected = [[0.4, 0.4, 0.2], [0.3, 0.4, 0.3], [0.12, 0.48, 0.4]]
    torch.testing.assert_close(mixed_by(scores, none, 0.4, [0, 1, 2]), torch.tensor(expected))
    # The plain mean as a third candidate, [1, 1, 1] / 3, has 1/4, 1/2 and 1; own weight is taken of the rest alone.
    scores = torch.tensor([[9.0, log2, 0.0], [0.0, 9.0, none], [none, none, 9.0]])
    expected = [
        [0.75 * 0.4 + 1 / 12, 0.5 * 0.6 + 1 / 12, 0.25 * 0.6 + 1 / 12],
        [0.5 * 0.6 + 1 / 6, 0.5 * 0.4 + 1 / 6, 1 / 6],
        [1 / 3, 1 / 3, 1 / 3],
    ]
    torch.testing.assert_close(mixed_by(scores, 0.0, 0.4, [0, 1, 2]), torch.tensor(expected))


def test_attention_over_the_seen_clients():
    weights = mixed_by(torch.zeros(4, 4), -math.inf, 0.25, [0, 2])
    rows = [[0.25, 0, 0.75, 0], [0.5, 0, 0.5, 0], [0.75, 0, 0.25, 0], [0.5, 0, 0.5, 0]]
    torch.testing.assert_close(weights, torch.tensor(rows))
    torch.testing.assert_close(mixed_by(torch.zeros(3, 3), -math.inf, 0.25, []), torch.eye(3))
    for mean_score in (-math.inf, 0.0):
        alone = mixed_by(torch.zeros(2, 2), mean_score, 0.25, [1])
        torch.testing.assert_close(alone, torch.tensor([[0.0, 1.0], [0.0, 1.0]]))


def test_a_share_of_the_plain_mean():
    weights = Weights(torch.tensor([0.0, 0.5]), torch.tensor([[0.0, 0.0, 1.0], [0.25, 0.0, 0.25]]))
    expected = [[0.125, 0, 0.875], [0.5, 0, 0.5]]
    torch.testing.assert_close(weights.blended(0.25).rows([0, 2]), torch.tensor(expected))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_made_for_those_who_receive_alone(kind):
    noted = history(kind)
    server = Attention(4, kind, 0.3, 0.7, None, 0.25, 2)
    server.history = noted
    assert torch.equal(server.rows([3, 1]), server.rows(range(4))[[3, 1]])


def people(*tasks_of_clients: list[set[int]]) -> History:
    return History([[TaskRecord(frozenset(task), None) for task in tasks] for tasks in tasks_of_clients], [])


def test_overlap_is_the_weighted_jaccard_index():
    noted = people([{1, 2}, {2, 3}], [{3, 4}], [{5}], [])
    without = similarity_of("overlap", noted, 1.0)
    assert without[0, 1] == without[1, 0] == pytest.approx(1 / 4)
    assert without[0, 2] == without[3, 0] == without[3, 3] == 0
    assert without[0, 0] == without[2, 2] == 1
    # Person 1 was last met one task ago: min / max of (1: .5, 2: 1, 3: 1) and (3: 1, 4: 1).
    assert similarity_of("overlap", noted, 0.5)[0, 1] == pytest.approx(1 / 3.5)
    both_old = people([{1}, {2}], [{1}, {3}])
    assert similarity_of("overlap", both_old, 0.5)[0, 1] == pytest.approx(0.5 / 2.5)
    assert similarity_of("overlap", both_old, 0.0)[0, 1] == 0


def test_people_are_matched_across_cameras_that_see_in_another_light():
    """Clients 0 and 1 share 30 of 40 people, client 2 has 40 others; each camera adds much the same to all that it sees."""
    generator = torch.Generator().manual_seed(0)
    looks = torch.randn(90, 10, generator=generator) @ torch.randn(10, 200, generator=generator)  # ten traits
    light = 20 * torch.randn(3, 200, generator=generator)
    seen = [range(40), range(10, 50), range(50, 90)]
    noted = History.empty(3)
    for client, pids in enumerate(seen):
        shown = looks[list(pids)] + light[client] + 0.5 * torch.randn(40, 200, generator=generator)
        for task in (shown[:20], shown[20:]):
            noted.note(client, True, frozenset(), task)
    found = similarity_of("prototypes", noted, 1.0)
    torch.testing.assert_close(found, found.T)
    assert found[0, 1] == pytest.approx(30 / 50, abs=0.1)
    assert found[:2, 2].tolist() == pytest.approx([0, 0], abs=0.1)
    assert found.diagonal().tolist() == [0, 0, 0]


def test_equal_prototypes_are_a_jaccard_index_of_1_and_none_are_0():
    rows = torch.eye(6)
    noted = History([[TaskRecord(frozenset(), rows)], [TaskRecord(frozenset(), 3 + rows.flip(0))], []], [])
    assert similarity_of("prototypes", noted, 1.0).tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]


def tokens(*tasks_of_clients: list[list[float]]) -> History:
    return History(
        [[TaskRecord(frozenset(), torch.tensor(token)) for token in tasks] for tasks in tasks_of_clients], []
    )


def test_token_divergences_by_hand():
    noted = tokens([[1.0, 3.0]], [[2.0, 2.0]])
    kl_even_from_mine = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    kl_mine_from_even = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    similarity = similarity_of("token_kl", noted, 1.0)
    assert similarity[0, 1] == pytest.approx(-kl_even_from_mine, rel=1e-5)
    assert similarity[1, 0] == pytest.approx(-kl_mine_from_even, rel=1e-5)
    p, q, m = (0.25, 0.75), (0.5, 0.5), (0.375, 0.625)
    js = sum(a * math.log(a / c) + b * math.log(b / c) for a, b, c in zip(p, q, m, strict=True)) / 2
    similarity = similarity_of("token_js", noted, 1.0)
    assert similarity[0, 1] == similarity[1, 0] == pytest.approx(-js, rel=1e-5)


def test_jensen_shannon_is_bounded():
    similarity = similarity_of("token_js", tokens([[1.0, 0.0]], [[0.0, 1.0]]), 1.0)
    assert similarity[0, 1] == pytest.approx(-math.log(2), rel=1e-4)


@pytest.mark.parametrize("measure", ["token_kl", "token_js"])
def test_the_scale_of_a_token_does_not_matter(measure):
    one, other = torch.rand(2, 9, generator=torch.Generator().manual_seed(3)).tolist()
    plain = similarity_of(measure, tokens([one], [other]), 1.0)
    scaled = similarity_of(measure, tokens([[50 * x for x in one]], [other]), 1.0)
    torch.testing.assert_close(plain, scaled)


def test_token_cosine_takes_the_common_part_off():
    common = torch.tensor([100.0, 100.0, 100.0])
    ways = [torch.tensor(way) for way in ([1.0, 0, 0], [1.0, 0, 0], [-2.0, 0, 0])]
    noted = tokens(*[[(common + way).tolist()] for way in ways])
    similarity = similarity_of("token_cosine", noted, 1.0)
    torch.testing.assert_close(similarity[0], torch.tensor([0.0, 1.0, -1.0]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("measure", ["token_kl", "token_js", "token_cosine"])
def test_older_tasks_count_less_and_own_history_does_not(measure):
    near, far, mine = [1.0, 2.0, 4.0], [9.0, 1.0, 1.0], [1.0, 2.0, 5.0]

    def similarity(forgetting: float, *theirs: list[float]) -> float:
        return float(similarity_of(measure, tokens([far, mine], list(theirs), [near]), forgetting)[0, 1])

    old, new = similarity(1.0, near, far), similarity(0.0, near, far)
    assert similarity(0.5, near, far) == pytest.approx((2 * new + (2 * old - new)) / 3, rel=1e-4)
    assert new < similarity(0.5, near, far) < old
    assert similarity(0.0, near, far) == pytest.approx(similarity(1.0, far), rel=1e-4)


def test_a_newer_token_of_the_same_task_replaces_the_older_one():
    noted = History.empty(2)
    first, second = torch.tensor([1.0]), torch.tensor([2.0])
    noted.note(1, True, frozenset({4}), first)
    noted.note(1, False, frozenset(), second)
    assert noted.seen_clients() == [1]
    assert [(task.people, task.token.item()) for task in noted.tasks[1]] == [({4}, 2.0)]


@pytest.mark.parametrize(("measure", "kept"), [("reference_code", [1.0, 2.0]), ("token_kl", [])])
def test_only_the_reference_keeps_every_token(measure, kept):
    attention = Attention(2, measure, tau=1.0, forgetting=1.0, self_weight=None, mean_share=0.0, step=1)
    for value in (1.0, 2.0):
        attention.note([1], {"token": torch.tensor([[value]]), "header": torch.tensor([[0]])})
    assert [token.item() for token in attention.history.uploads[1]] == kept
    assert attention.history.tasks[1][-1].token == 2.0


def test_overlap_weighs_partners_against_the_plain_mean():
    """Clients 0 and 1 know the same two people and one more each, 2 shares nobody; a Jaccard index of a half."""
    noted = people([{1, 2, 3}], [{1, 2, 4}], [{5}])
    partner = math.expm1(0.5 / 0.2)  # against 1 for the mean
    mean = 1 / (1 + partner)
    weights = matrix(noted, "overlap", tau=0.2, forgetting=1.0, self_weight=0.25)
    expected = [0.25 * (1 - mean) + mean / 3, 0.75 * (1 - mean) + mean / 3, mean / 3]
    assert weights[0].tolist() == pytest.approx(expected)
    assert weights[2].tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("tau", [1e-3, 0.2, 1e3])
def test_little_overlap_changes_little_and_more_clients_without_any_change_nothing(tau):
    crowds = [{100 * client + person for person in range(1 if client else 100)} for client in range(40)]
    crowds[1].add(0)
    weights = matrix(people(*([crowd] for crowd in crowds)), "overlap", tau=tau, forgetting=1.0, self_weight=0.0)
    partner = -math.expm1(-0.01 / 1.01 / tau)  # expm1(x) / (1 + expm1(x)): beside the mean's share
    assert weights[0, 1].item() == pytest.approx(partner, rel=0.1, abs=0.03)
    torch.testing.assert_close(weights[2:], torch.full((38, 40), 1 / 40))


def test_without_any_partners_it_is_the_plain_mean():
    assert torch.equal(matrix(people([{1}], [{2}], [{3}]), "overlap"), torch.full((3, 3), 1 / 3))


# -- the matrices as they are defined, pair by pair --------------------------------------------------------------------


def random_history(seed: int, clients: int, people: int) -> History:
    random = np.random.default_rng(seed)
    noted = History.empty(clients)
    for client in range(clients):
        for _ in range(random.integers(0, 6)):
            noted.note(client, True, frozenset(random.integers(0, people, random.integers(0, 9)).tolist()), None)
    return noted


def literal_overlap(noted: History, forgetting: float) -> Tensor:
    weights = [
        {person: forgetting**age for age, task in reversed(list(enumerate(reversed(tasks)))) for person in task.people}
        for tasks in noted.tasks
    ]
    similarity = torch.zeros(len(weights), len(weights))
    for i, mine in enumerate(weights):
        for j, theirs in enumerate(weights):
            union = mine.keys() | theirs.keys()
            both = sum(min(mine.get(p, 0.0), theirs.get(p, 0.0)) for p in union)
            either = sum(max(mine.get(p, 0.0), theirs.get(p, 0.0)) for p in union)
            similarity[i, j] = both / either if either else 0.0
    return similarity


def literal_attention(similarity: Tensor, tau: float, own: float, seen: list[int]) -> Tensor:
    clients = len(similarity)
    relevance = torch.zeros_like(similarity)
    for i in range(clients):
        evidence = {j: math.expm1(similarity[i, j] / tau) for j in seen if j != i}
        mean = 1 / (1 + sum(evidence.values()))
        kept = own if i in seen else 0.0
        for j, strength in evidence.items():
            relevance[i, j] = (1 - kept) * strength * mean
        relevance[i, i] += kept * (1 - mean)
        relevance[i, seen] += mean / len(seen)
    return relevance if seen else torch.eye(clients)


@pytest.mark.parametrize("forgetting", [1.0, 0.7, 0.3, 0.0])
@pytest.mark.parametrize(("clients", "people"), [(1, 9), (2, 9), (7, 9), (18, 40), (60, 300)])
def test_matrices_are_those_of_the_definition(clients, people, forgetting):
    for seed in range(5):
        noted = random_history(seed, clients, people)
        similarity = similarity_of("overlap", noted, forgetting)
        assert torch.equal(similarity, literal_overlap(noted, forgetting))
        expected = literal_attention(similarity, 0.2, 1 / clients, noted.seen_clients())
        torch.testing.assert_close(matrix(noted, "overlap", 0.2, forgetting), expected, rtol=1e-5, atol=1e-7)


def test_pairs_are_counted_in_parts(monkeypatch):
    noted = random_history(0, 30, 10)
    whole = similarity_of("overlap", noted, 0.5)
    monkeypatch.setattr(relevance, "PAIRS", 100)
    torch.testing.assert_close(similarity_of("overlap", noted, 0.5), whole, rtol=1e-6, atol=0)
