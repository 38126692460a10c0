import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fedstil_mpi.methods.fedstil import relevance
from fedstil_mpi.methods.fedstil.attention import attention, own_weights, reference_code_relevance
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


def history(clients: int = 4, seed: int = 0, tasks: tuple[int, ...] = (3, 1, 2, 2)) -> History:
    """Clients with some people in common and random non-negative tokens."""
    generator = torch.Generator().manual_seed(seed)
    noted = History.empty(clients)
    for client in range(clients):
        for task in range(tasks[client]):
            people = torch.randperm(12, generator=generator)[:5].tolist()
            tokens = [torch.rand(20, generator=generator) for _ in range(2)]
            noted.note(client, True, frozenset(people), tokens[0])
            noted.note(client, False, frozenset(), tokens[1])
            noted.uploads[client] += tokens
            assert len(noted.tasks[client]) == task + 1
    return noted


def mixing(noted: History, kind: str, tau: float = 0.3, forgetting: float = 0.7) -> Tensor:
    if kind == "reference_code":
        return reference_code_relevance(noted.uploads, 2, forgetting)[2]
    similarity, clients = MEASURES[kind](noted, forgetting), len(noted.tasks)
    own = own_weights(similarity, 1 / clients, tau) if kind == "overlap" else [1 / clients] * clients
    return attention(similarity, tau, own, noted.seen_clients())


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
    _, share, weights = reference_code_relevance(history().uploads, 3, 0.8)
    torch.testing.assert_close(share.diagonal(), torch.full((4,), 0.25, dtype=torch.float64))
    assert (weights > math.exp(-0.75) / 4).all()  # the second softmax leaves them nearly even


@pytest.mark.parametrize("kind", KINDS)
def test_rows_sum_to_1(kind):
    weights = mixing(history(), kind)
    assert weights.shape == (4, 4)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(4, dtype=weights.dtype))


@pytest.mark.parametrize("kind", KINDS)
def test_identical_clients_get_identical_weights(kind):
    noted = reordered(history(), [0, 1, 2, 1])
    weights = mixing(noted, kind)
    torch.testing.assert_close(weights[[0, 2], 1], weights[[0, 2], 3])
    torch.testing.assert_close(weights[1, [0, 2]], weights[3, [0, 2]])
    torch.testing.assert_close(weights[1, 3], weights[3, 1])
    torch.testing.assert_close(weights[1, 1], weights[3, 3])
    everyone = mixing(reordered(history(), [2, 2, 2]), kind)
    torch.testing.assert_close(everyone, torch.full_like(everyone, 1 / 3))


@pytest.mark.parametrize("kind", KINDS)
def test_permuting_clients_permutes_the_weights(kind):
    order = [2, 0, 3, 1]
    weights = mixing(history(), kind)
    torch.testing.assert_close(mixing(reordered(history(), order), kind), weights[order][:, order])
    assert kind == "uniform" or weights.std() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_alone_keeps_its_own(kind):
    assert mixing(history(1), kind).tolist() == [[1.0]]


def test_attention_by_hand():
    similarity = torch.tensor([[9.0, math.log(2), 0.0], [0.0, 9.0, 0.0], [1.0, 1.0 + math.log(4), 9.0]])
    expected = [[0.4, 0.4, 0.2], [0.3, 0.4, 0.3], [0.12, 0.48, 0.4]]
    torch.testing.assert_close(attention(similarity, 1.0, [0.4] * 3, [0, 1, 2]), torch.tensor(expected))
    sharper = attention(similarity, 0.5, [0.0, 0.5, 1.0], [0, 1, 2])
    torch.testing.assert_close(sharper, torch.tensor([[0.0, 0.8, 0.2], [0.25, 0.5, 0.25], [0.0, 0.0, 1.0]]))


def test_attention_over_the_seen_clients():
    weights = attention(torch.zeros(4, 4), 0.2, [0.25] * 4, [0, 2])
    rows = [[0.25, 0, 0.75, 0], [0.5, 0, 0.5, 0], [0.75, 0, 0.25, 0], [0.5, 0, 0.5, 0]]
    torch.testing.assert_close(weights, torch.tensor(rows))
    torch.testing.assert_close(attention(torch.zeros(3, 3), 0.2, [0.25] * 3, []), torch.eye(3))
    torch.testing.assert_close(
        attention(torch.zeros(2, 2), 0.2, [0.25] * 2, [1]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    )


def people(*tasks_of_clients: list[set[int]]) -> History:
    return History([[TaskRecord(frozenset(task), None) for task in tasks] for tasks in tasks_of_clients], [])


def test_overlap_is_the_weighted_jaccard_index():
    noted = people([{1, 2}, {2, 3}], [{3, 4}], [{5}], [])
    without = MEASURES["overlap"](noted, 1.0)
    assert without[0, 1] == without[1, 0] == pytest.approx(1 / 4)
    assert without[0, 2] == without[3, 0] == without[3, 3] == 0
    assert without[0, 0] == without[2, 2] == 1
    # Person 1 was last met one task ago: min / max of (1: .5, 2: 1, 3: 1) and (3: 1, 4: 1).
    assert MEASURES["overlap"](noted, 0.5)[0, 1] == pytest.approx(1 / 3.5)
    both_old = people([{1}, {2}], [{1}, {3}])
    assert MEASURES["overlap"](both_old, 0.5)[0, 1] == pytest.approx(0.5 / 2.5)
    assert MEASURES["overlap"](both_old, 0.0)[0, 1] == 0


def tokens(*tasks_of_clients: list[list[float]]) -> History:
    return History(
        [[TaskRecord(frozenset(), torch.tensor(token)) for token in tasks] for tasks in tasks_of_clients], []
    )


def test_token_divergences_by_hand():
    noted = tokens([[1.0, 3.0]], [[2.0, 2.0]])
    kl_even_from_mine = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    kl_mine_from_even = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    similarity = MEASURES["token_kl"](noted, 1.0)
    assert similarity[0, 1] == pytest.approx(-kl_even_from_mine, rel=1e-5)
    assert similarity[1, 0] == pytest.approx(-kl_mine_from_even, rel=1e-5)
    p, q, m = (0.25, 0.75), (0.5, 0.5), (0.375, 0.625)
    js = sum(a * math.log(a / c) + b * math.log(b / c) for a, b, c in zip(p, q, m, strict=True)) / 2
    similarity = MEASURES["token_js"](noted, 1.0)
    assert similarity[0, 1] == similarity[1, 0] == pytest.approx(-js, rel=1e-5)


def test_jensen_shannon_is_bounded():
    similarity = MEASURES["token_js"](tokens([[1.0, 0.0]], [[0.0, 1.0]]), 1.0)
    assert similarity[0, 1] == pytest.approx(-math.log(2), rel=1e-4)


@pytest.mark.parametrize("measure", ["token_kl", "token_js"])
def test_the_scale_of_a_token_does_not_matter(measure):
    one, other = torch.rand(2, 9, generator=torch.Generator().manual_seed(3)).tolist()
    plain = MEASURES[measure](tokens([one], [other]), 1.0)
    scaled = MEASURES[measure](tokens([[50 * x for x in one]], [other]), 1.0)
    torch.testing.assert_close(plain, scaled)


def test_token_cosine_takes_the_common_part_off():
    common = torch.tensor([100.0, 100.0, 100.0])
    ways = [torch.tensor(way) for way in ([1.0, 0, 0], [1.0, 0, 0], [-2.0, 0, 0])]
    noted = tokens(*[[(common + way).tolist()] for way in ways])
    similarity = MEASURES["token_cosine"](noted, 1.0)
    torch.testing.assert_close(similarity[0], torch.tensor([0.0, 1.0, -1.0]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("measure", ["token_kl", "token_js", "token_cosine"])
def test_older_tasks_count_less_and_own_history_does_not(measure):
    near, far, mine = [1.0, 2.0, 4.0], [9.0, 1.0, 1.0], [1.0, 2.0, 5.0]

    def similarity(forgetting: float, *theirs: list[float]) -> float:
        return float(MEASURES[measure](tokens([far, mine], list(theirs), [near]), forgetting)[0, 1])

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
    attention = Attention(2, measure, tau=1.0, forgetting=1.0, self_weight=None, step=1)
    for value in (1.0, 2.0):
        attention.note([1], {"token": torch.tensor([[value]]), "header": torch.tensor([[0]])})
    assert [token.item() for token in attention.history.uploads[1]] == kept
    assert attention.history.tasks[1][-1].token == 2.0


def test_who_has_no_partner_keeps_its_own():
    """Clients 0 and 1 know the same people, 2 shares a tenth of that with 0, and 3 knows nobody that others know."""
    similarity = torch.tensor(
        [[1.0, 0.8, 0.08, 0.0], [0.8, 1.0, 0.0, 0.0], [0.08, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    )
    # client 2: its best partner has 0.08 / (0.25 * 0.8) = 0.4 of what counts as partnered
    bond = 1 - math.exp(-4)
    expected = [0.25, 0.25, 0.25 + 0.75 * bond * 0.6, 0.25 + 0.75 * bond]
    assert own_weights(similarity, 0.25, tau=0.2) == pytest.approx(expected)
    weights = attention(similarity, 0.2, expected, [0, 1, 2, 3])
    assert weights[3, 3] == pytest.approx(expected[3])
    assert expected[3] > 0.98


def test_without_any_partners_there_are_no_groups_to_keep_away_from():
    assert own_weights(torch.eye(3), 0.25, tau=0.2) == [0.25, 0.25, 0.25]


def test_keeping_to_oneself_begins_gradually():
    similarity = torch.zeros(3, 3)
    similarity[0, 1] = similarity[1, 0] = 1e-6
    assert own_weights(similarity, 0.25, tau=0.2) == pytest.approx([0.25, 0.25, 0.25], abs=1e-5)


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


def literal_attention(similarity: Tensor, tau: float, own_K: list[float], seen: list[int]) -> Tensor:
    relevance = torch.zeros_like(similarity)
    for i, own in enumerate(own_K):
        if others := [j for j in seen if j != i]:
            own = own if i in seen else 0.0
            relevance[i, others] = (1 - own) * torch.softmax(similarity[i, others] / tau, 0)
            relevance[i, i] += own
        else:
            relevance[i, i] = 1.0
    return relevance


@pytest.mark.parametrize("forgetting", [1.0, 0.7, 0.3, 0.0])
@pytest.mark.parametrize(("clients", "people"), [(1, 9), (2, 9), (7, 9), (18, 40), (60, 300)])
def test_matrices_are_those_of_the_definition_to_the_last_bit(clients, people, forgetting):
    for seed in range(5):
        noted = random_history(seed, clients, people)
        similarity = MEASURES["overlap"](noted, forgetting)
        assert torch.equal(similarity, literal_overlap(noted, forgetting))
        own = own_weights(similarity, 1 / clients, 0.2)
        for seen in (noted.seen_clients(), [], [clients - 1]):
            assert torch.equal(attention(similarity, 0.2, own, seen), literal_attention(similarity, 0.2, own, seen))


def test_pairs_are_counted_in_parts(monkeypatch):
    noted = random_history(0, 30, 10)
    whole = MEASURES["overlap"](noted, 0.5)
    monkeypatch.setattr(relevance, "PAIRS", 100)
    torch.testing.assert_close(MEASURES["overlap"](noted, 0.5), whole, rtol=1e-6, atol=0)
