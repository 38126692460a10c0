from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fedstil_mpi.evaluation.retrieval import evaluate
from fedstil_mpi.evaluation.searchable import have_match, is_searchable


def labels(*rows: tuple[int, int]) -> np.ndarray:
    return np.array(rows, np.int64).reshape(-1, 2)


def task(query: np.ndarray, gallery: np.ndarray) -> SimpleNamespace:
    return SimpleNamespace(query=SimpleNamespace(labels=query), gallery=SimpleNamespace(labels=gallery))


@pytest.mark.parametrize("protocol", ["market", "reference_code"])
def test_the_queries_with_a_match_are_those_that_a_search_counts(protocol):
    rng = np.random.default_rng(0)
    query, gallery = (np.stack([rng.integers(8, size=n), rng.integers(-1, 3, n)], 1) for n in (60, 12))
    found = have_match(query, gallery, protocol == "market")
    result = evaluate(
        torch.ones(60, 2), query[:, 0], torch.ones(12, 2), gallery[:, 0], query[:, 1], gallery[:, 1], protocol
    )
    assert 0 < found.sum() == result.valid_queries < 60


@pytest.mark.parametrize(
    ("scope", "protocol", "clients", "searchable"),
    [
        ("task", "market", [[task(labels((1, 0)), labels((1, 0)))]], False),  # at its own camera
        ("task", "reference_code", [[task(labels((1, 0)), labels((1, 0)))]], True),
        ("task", "market", [[task(labels((1, 0)), labels((1, 1)))]], True),
        ("task", "market", [[task(labels((1, -1)), labels((1, -1)))]], True),
        ("task", "market", [[task(labels((1, 0)), labels((2, 1))), task(labels((3, 0)), labels((1, 1)))]], False),
        ("client", "market", [[task(labels((1, 0)), labels((2, 1))), task(labels((3, 0)), labels((1, 1)))]], True),
        ("client", "market", [[task(labels((1, 0)), labels((2, 1)))], [task(labels((3, 0)), labels((1, 1)))]], False),
        ("all", "market", [[task(labels((1, 0)), labels((2, 1)))], [task(labels((3, 0)), labels((1, 1)))]], True),
    ],
)
def test_a_stream_is_searchable_where_one_query_has_a_match(scope, protocol, clients, searchable):
    assert is_searchable(clients, scope, protocol, share=lambda rows: rows) == searchable
    assert not is_searchable([], scope, protocol, share=lambda rows: rows)
