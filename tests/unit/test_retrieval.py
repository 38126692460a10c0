import numpy as np
import pytest
import torch

from fedstil_mpi.evaluation import retrieval
from fedstil_mpi.evaluation.retrieval import PROTOCOLS, Retrieval, evaluate
from fedstil_mpi.util.errors import InputError
from support.golden_files import golden


def brute_force(junk, query, q_pids, gallery, g_pids, q_cameras, g_cameras):
    """(first match's rank, AP) of every query, None without a match; one image after the other, as the book says."""
    results = []
    for feature, person, camera in zip(query, q_pids, q_cameras, strict=True):
        similarity = [
            float(feature @ other / np.linalg.norm(feature) / np.linalg.norm(other)) for other in gallery.astype(float)
        ]
        order = sorted(range(len(gallery)), key=lambda i: (-similarity[i], i))
        if junk:
            order = [i for i in order if not (g_pids[i] == person and g_cameras[i] == camera and camera >= 0)]
        places = [place for place, i in enumerate(order, 1) if g_pids[i] == person]
        precision = [n / place for n, place in enumerate(places, 1)]
        results.append((places[0], sum(precision) / len(precision)) if places else None)
    return results


def random_data(rng, *, queries=60, images=25, people=8, tied):
    """More people among the queries than in the gallery, so that some have no match. Tied features are corners of a
    four-dimensional cube, whose cosines are exact in floating point and take five values only."""
    shape = (queries + images, 4)
    features = rng.choice([-1.0, 1.0], shape) if tied else rng.normal(size=shape)
    q_pids, g_pids = rng.integers(people + 3, size=queries), rng.integers(people, size=images)
    q_cameras, g_cameras = rng.integers(-1, 2, queries), rng.integers(-1, 2, images)
    return features[:queries], q_pids, features[queries:], g_pids, q_cameras, g_cameras


def run(query, q_pids, gallery, g_pids, *cameras, **options) -> Retrieval:
    return evaluate(torch.as_tensor(query), q_pids, torch.as_tensor(gallery), g_pids, *cameras, **options)


@pytest.mark.parametrize("path", golden("g_retrieval"), ids=lambda path: path.stem)
def test_golden(path):
    data = np.load(path)
    inputs = data["query"], data["query_label"], data["gallery"], data["gallery_label"]

    market = run(*inputs)
    np.testing.assert_allclose(market.cmc, data["std_cmc_valid"], atol=1e-6)
    assert market.map == pytest.approx(float(data["std_map_valid"]), abs=1e-6)
    assert (market.valid_queries, market.queries) == (data["has_match"].sum(), len(data["query"]))

    reference = run(*inputs, protocol="reference_code")
    np.testing.assert_allclose(reference.cmc, data["ref_cmc"], atol=1e-6)
    assert reference.map == pytest.approx(float(data["ref_map"]), abs=1e-6)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("protocol", ["market", "reference_code"])
@pytest.mark.parametrize("seed", range(5))
def test_brute_force(seed, protocol, tied):
    data = random_data(np.random.default_rng(seed), tied=tied)
    results = brute_force(protocol == "market", *data)
    valid = [result for result in results if result]
    assert 0 < len(valid) < len(results), "the data must hold queries with and without a match"
    counted = len(valid) if protocol == "market" else len(results)
    precisions = [ap if protocol == "market" else 1 if first == 1 else 1 / (2 * first) for first, ap in valid]

    got = run(*data, protocol=protocol)
    assert (got.valid_queries, got.queries) == (len(valid), len(results))
    assert got.map == pytest.approx(sum(precisions) / counted)
    for k in range(1, 26):
        assert got.rank(k) == pytest.approx(sum(first <= k for first, _ in valid) / counted)


def line(*similarities: float) -> torch.Tensor:
    """Unit vectors with these cosines to (1, 0)."""
    return torch.tensor([[s, (1 - s * s) ** 0.5] for s in similarities])


def test_by_hand():
    """Matches at ranks 2 and 3: market (1/2 + 2/3)/2, reference 1/4."""
    query, gallery, pids = line(1.0), line(0.2, 0.9, 0.5, 0.7), np.array([7, 3, 7, 7])
    assert run(query, np.array([7]), gallery[:3], pids[:3]).map == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert run(query, np.array([7]), gallery, pids, protocol="reference_code").map == pytest.approx(1 / 4)


def test_junk_takes_no_rank():
    query, gallery, pids = line(1.0), line(0.9, 0.7, 0.5), np.array([7, 3, 7])
    cameras = np.array([1, 1, 2])
    market = run(query, np.array([7]), gallery, pids, np.array([1]), cameras)
    assert (market.rank(1), market.rank(2), market.map) == (0.0, 1.0, 0.5)
    unknown = run(query, np.array([7]), gallery, pids, np.array([-1]), np.array([-1, -1, -1]))
    assert unknown.map == pytest.approx((1 + 2 / 3) / 2)
    reference = run(query, np.array([7]), gallery, pids, np.array([1]), cameras, protocol="reference_code")
    assert reference.rank(1) == 1.0


def test_small_gallery_has_rank_10():
    result = run(line(1.0, 0.9), np.array([1, 2]), line(1.0, 0.5, 0.3, 0.2), np.array([5, 1, 6, 8]))
    np.testing.assert_array_equal(result.cmc, [0.0] + [1.0] * 9)
    assert result.rank(10) == result.rank(50) == 1.0
    with pytest.raises(IndexError):
        result.rank(0)


def test_gallery_order_and_feature_length_do_not_matter():
    rng = np.random.default_rng(3)
    query, q_pids, gallery, g_pids, q_cameras, g_cameras = random_data(rng, tied=False)
    expected = run(query, q_pids, gallery, g_pids, q_cameras, g_cameras)
    order, scale = rng.permutation(len(gallery)), rng.uniform(0.01, 100, (len(gallery), 1))
    got = run(3 * query, q_pids, (gallery * scale)[order], g_pids[order], q_cameras, g_cameras[order])
    np.testing.assert_array_equal(got.cmc, expected.cmc)
    assert got.map == pytest.approx(expected.map, abs=1e-12)
    assert 0 < expected.map < 1


@pytest.mark.parametrize("protocol", ["market", "reference_code"])
def test_perfect_features(protocol):
    pids = np.repeat(np.arange(6), 4)
    features = torch.eye(6)[pids]
    result = run(features, pids, features, pids, protocol=protocol)
    assert result.map == pytest.approx(1.0)
    np.testing.assert_array_equal(result.cmc, 1.0)


@pytest.mark.parametrize("images", [0, 3])
def test_no_match_at_all(images):
    query, gallery = torch.ones(2, 5), torch.ones(images, 5)
    pids = np.array([1, 2]), np.full(images, 9)
    market = run(query, pids[0], gallery, pids[1])
    assert np.isnan(market.map)
    assert np.isnan(market.rank(1))
    assert (market.valid_queries, market.queries) == (0, 2)
    reference = run(query, pids[0], gallery, pids[1], protocol="reference_code")
    assert reference.map == reference.rank(10) == 0.0


def test_no_query_at_all():
    for images in (0, 3):
        given = torch.ones(0, 5), np.empty(0, int), torch.ones(images, 5), np.arange(images)
        for rerank in (False, True):
            result = run(*given, protocol="reference_code", rerank=rerank)
            assert np.isnan(result.map)
            assert result.queries == 0


def test_a_third_is_a_third_in_double_precision():
    features = torch.eye(3)
    result = run(features, np.array([1, 2, 3]), features.roll(1, 0), np.array([1, 2, 2]), protocol="reference_code")
    assert result.rank(1) == 1 / 3


def test_diverged_features_rank_nothing():
    """Nobody is found, which is 0 and not a value that a mean over models leaves out."""
    features = torch.full((3, 5), torch.nan)
    for protocol in PROTOCOLS:
        result = run(features, np.arange(3), features, np.arange(3), protocol=protocol)
        assert (result.map, result.counted) == (0, 1)
        assert not result.cmc.any()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_images_of_a_diverged_model_are_never_found(bad):
    """Of two matches, the nearer described by a model that has diverged: 0 for it, 1/2 for the other, at rank 2."""
    query, gallery = line(1.0), torch.cat([torch.full((1, 2), bad), line(0.9, 0.5)])
    result = run(query, np.array([7]), gallery, np.array([7, 3, 7]))
    assert (result.rank(1), result.rank(2), result.map) == (0, 1, (1 / 2 + 0) / 2)
    both = run(torch.cat([query, torch.full((1, 2), bad)]), np.array([3, 3]), gallery, np.array([7, 3, 7]))
    assert both.rank(1) == both.map == 1 / 2


def test_the_share_of_queries_that_count():
    query, gallery = line(1.0, 0.9, 0.8, 0.7), line(1.0)
    assert run(query, np.array([7, 1, 7, 7]), gallery, np.array([7])).counted == 3 / 4
    assert run(query, np.array([7, 1, 7, 7]), gallery, np.array([7]), protocol="reference_code").counted == 1
    assert run(query, np.array([1, 1, 1, 1]), gallery, np.array([7])).counted == 0


def test_unknown_protocol():
    with pytest.raises(InputError, match=r"unknown: choose one of"):
        run(torch.ones(1, 2), np.array([1]), torch.ones(1, 2), np.array([1]), protocol="markt")


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_search_in_blocks_finds_the_same_with_few_pairs_at_a_time(protocol, tied, monkeypatch):
    """To the bit where cosines are exact; a product of other shapes may differ in its last bits else."""
    data = random_data(np.random.default_rng(7), tied=tied)
    data[2][3] = np.nan  # it is never found
    whole = run(*data, protocol=protocol)
    pairs, score = [], retrieval._score
    monkeypatch.setattr(retrieval, "BLOCK", 4)
    monkeypatch.setattr(retrieval, "PAIRS", 3 * 25 + 1)
    monkeypatch.setattr(retrieval, "_score", lambda found, *more: pairs.append(found.shape) or score(found, *more))
    blocks = run(*data, protocol=protocol)
    assert pairs == [(3, 25)] * 20
    np.testing.assert_array_equal(blocks.cmc, whole.cmc)
    assert blocks.map == (whole.map if tied else pytest.approx(whole.map, rel=1e-12))
    assert (blocks.valid_queries, blocks.counted) == (whole.valid_queries, whole.counted)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_equals_cpu():
    query, q_pids, gallery, g_pids, *cameras = random_data(np.random.default_rng(0), tied=False)
    expected = run(query, q_pids, gallery, g_pids, *cameras)
    moved = torch.as_tensor(query).cuda(), q_pids, torch.as_tensor(gallery).cuda(), g_pids
    np.testing.assert_array_equal(evaluate(*moved, *cameras).cmc, expected.cmc)
    assert evaluate(*moved, *cameras).map == pytest.approx(expected.map)
