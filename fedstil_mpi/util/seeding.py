"""Random numbers that depend on what they are for, never on which rank draws them.

Every stream is derived from (seed, purpose...), for example `(seed, "augment", client, round)`, so the number of ranks,
the order of the clients on a rank and what other clients do leave it unchanged.
"""

import hashlib

import numpy as np


def integer(seed: int, *purpose: int | str) -> int:
    """A 63-bit integer for `torch.Generator().manual_seed`, equal on every machine for equal arguments."""
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *purpose: int | str) -> np.random.Generator:
    """A NumPy generator of its own for this purpose."""
    return np.random.default_rng(integer(seed, *purpose))
