import tracemalloc

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def little_memory():
    """The test may not take more than 64 MB at a time, of what Python allocates."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64e6
