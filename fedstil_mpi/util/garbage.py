"""Python's search for circles of objects that nobody needs."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def settled() -> Iterator[None]:
    """Within the block only what is made in it is searched: to look through all that was there before, libraries and set-up, takes
    a fifth of a second each time, and it stays anyway."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
