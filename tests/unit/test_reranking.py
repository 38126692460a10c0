"""k-reciprocal re-ranking against a case worked out by hand, and against the paper's definitions, set by set."""

import math

import numpy as np
import pytest
import torch

from fedstil_mpi.config.sections import Evaluation
from fedstil_mpi.evaluation.reranking import reranked
from fedstil_mpi.evaluation.retrieval import evaluate
from fedstil_mpi.evaluation.search import Gallery, score

# The query's nearest image, x, has nearer friends of its own, u and v; y is further away, but the query is its nearest.
Q, X, Y, U, V = range(5)
DISTANCES = {
    (Q, X): 1,
    (Q, Y): 2,
    (Q, U): 4,
    (Q, V): 4,
    (Y, X): 3,
    (Y, U): 4,
    (Y, V): 4,
    (X, U): 0.5,
    (X, V): 0.6,
    (U, V): 0.7,
}


def hand():
    matrix = torch.zeros(5, 5, dtype=torch.float64)
    for (i, j), distance in DISTANCES.items():
        matrix[i, j] = matrix[j, i] = distance
    return matrix


def test_by_hand():
    """With k1 = 2 the query is reciprocal with y alone, x with u and v. All rows of distances are divided by 4.

    So the query's vector has e / (1 + e) at y, with e = exp(-2 / 4), and 1 / (1 + e) at itself; y's has them the other way
    round. Their minima add up to 2 e / (1 + e), which makes the Jaccard distance 1 - e; to x, with nothing in common, it is 1.
    """
    e = math.exp(-0.5)
    found = reranked(hand(), 1, k1=2, k2=1, share=0.3)[0]
    assert found[Y - 1] == pytest.approx(0.7 * (1 - e) + 0.3 * 2 / 4)
    assert found[X - 1] == pytest.approx(0.7 + 0.3 * 1 / 4)
    assert found[Y - 1] < found[X - 1]  # by distance alone x comes first


def test_averaging_over_two_neighbours_by_hand():
    """The query's vector becomes the mean of its own and x's, y's the mean of its own and the query's, which is 1/2 at both.

    Of the query's, half lies where y's is 1/2: min = (1 / 2 of 1) = 1/2, and the distance 1 - (1/2) / (3/2) = 2/3. Of x's, the
    mean of its own and u's, at least x's half is shared: 2/3 too.
    """
    found = reranked(hand(), 1, k1=2, k2=2, share=0.0)[0]
    assert found[Y - 1] == pytest.approx(2 / 3)
    assert found[X - 1] == pytest.approx(2 / 3)


def test_nothing_but_the_distance_is_left_with_a_share_of_1():
    assert torch.equal(reranked(hand(), 2, k1=2, k2=2, share=1.0), hand()[:2, 2:] / hand().amax(1)[:2, None])


def by_sets(distances, queries, k1, k2, share):
    """The paper's definitions, with sets and loops."""
    own = distances / distances.max(1, keepdims=True)
    n, order = len(own), np.argsort(own, axis=1, kind="stable")

    def reciprocal(i, k):
        return {j for j in order[i, : k + 1] if i in order[j, : k + 1]}

    vectors = np.zeros((n, n))
    for i in range(n):
        near = reciprocal(i, k1)
        expanded = set(near)
        for j in near:
            candidate = reciprocal(j, round(k1 / 2))
            if 3 * len(candidate & near) > 2 * len(candidate):
                expanded |= candidate
        for j in expanded:
            vectors[i, j] = math.exp(-own[i, j])
        vectors[i] /= vectors[i].sum()
    vectors = np.array([vectors[order[i, :k2]].mean(0) for i in range(n)])
    low, high = (np.array([[of(vectors[i], vectors[j]).sum() for j in range(queries, n)] for i in range(queries)])
                 for of in (np.minimum, np.maximum))  # fmt: skip
    return (1 - share) * (1 - low / high) + share * own[:queries, queries:]


@pytest.mark.parametrize(("k1", "k2"), [(4, 1), (6, 3), (20, 6), (60, 6)])
def test_it_is_what_the_paper_defines(k1, k2):
    points = np.random.default_rng(k1).normal(size=(40, 3))
    distances = ((points[:, None] - points[None]) ** 2).sum(-1)
    found = reranked(torch.from_numpy(distances), 10, k1=k1, k2=k2)
    np.testing.assert_allclose(found.numpy(), by_sets(distances, 10, k1, k2, 0.3), atol=1e-12)


def features(count, seed):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, 8)))


def test_the_order_of_a_gallery_does_not_matter():
    query, gallery = features(6, 1), features(30, 2)
    pids, of_query = np.arange(30) % 5, np.arange(6) % 5
    turned = np.random.default_rng(3).permutation(30)
    one = evaluate(query, of_query, gallery, pids, rerank=True)
    other = evaluate(query, of_query, gallery[turned], pids[turned], rerank=True)
    assert one.map == pytest.approx(other.map)
    assert np.allclose(one.cmc, other.cmc)
    assert evaluate(query, of_query, gallery, pids).map != one.map


def test_what_is_not_finite_is_never_found_and_finds_nobody():
    query, gallery = features(2, 1), features(8, 2)
    query[1], gallery[3] = torch.nan, torch.inf
    found = evaluate(query, np.array([0, 1]), gallery, np.array([0, 1] * 4), rerank=True)
    assert found.rank(8) == 0.5


def test_a_config_asks_for_it():
    labels = np.stack([np.arange(30) % 5, np.arange(30) % 3], axis=1)
    query, gallery = Gallery(features(6, 1), labels[:6]), Gallery(features(30, 2), labels)
    found = score(query, gallery, Evaluation(rerank=True))
    expected = evaluate(
        query.features, labels[:6, 0], gallery.features, labels[:, 0], labels[:6, 1], labels[:, 1], rerank=True
    )
    assert found[4] == expected.map
    assert found != score(query, gallery, Evaluation())
