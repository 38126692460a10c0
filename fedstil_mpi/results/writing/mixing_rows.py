"""How what clients were sent was mixed: rows of mixing matrices, deflated as results.h5 holds them.

In a row of thousands of clients nearly all count alike, so that it takes a hundredth of its K numbers, and of any other row
nothing is lost.
"""

import zlib
from collections.abc import Sequence

import numpy as np
import torch

from fedstil_mpi.util.state_tree import State

LEVEL = 1
"""Of zlib: higher ones take longer, and gain little here."""

MixingRows = dict[int, bytes]
"""Receiver -> its row of a round's matrix, float32 [K], deflated."""


def pack(receivers: Sequence[int], rows_OK: np.ndarray) -> MixingRows:
    """rows_OK: [receivers, K]."""
    return {
        client: zlib.compress(row.tobytes(), LEVEL)
        for client, row in zip(receivers, rows_OK.astype(np.float32), strict=True)
    }


def state(rows: MixingRows) -> State:
    """As a state tree."""
    return {
        "receivers": torch.tensor(list(rows)),
        "sizes": torch.tensor([len(row) for row in rows.values()]),
        "rows": torch.frombuffer(bytearray(b"".join(rows.values())), dtype=torch.uint8),
    }


def restored(state: State) -> MixingRows:
    """What `state` was given."""
    ends, packed = np.cumsum(state["sizes"]).tolist(), state["rows"].numpy().tobytes()
    parts = zip([0, *ends], ends, strict=False)
    return {client: packed[slice(*part)] for client, part in zip(state["receivers"].tolist(), parts, strict=True)}
