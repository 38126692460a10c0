"""Python looks for garbage among what a run makes in its rounds, and among everything again afterwards."""

import gc
import weakref

from fedstil_mpi.util.garbage import settled


class Circle:
    def __init__(self):
        self.itself = self


def test_what_was_there_before_is_left_alone_until_the_end():
    before = Circle()
    old = weakref.ref(before)
    with settled():
        within = Circle()
        new = weakref.ref(within)
        del before, within
        gc.collect()
        assert new() is None
        assert old() is not None
    gc.collect()
    assert old() is None
