import signal
import tracemalloc

import pytest
import torch

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a shell's background, and in all that is started there
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def little_memory():
    """The test may not take more than 64 MB at a time, of what Python allocates."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64e6
