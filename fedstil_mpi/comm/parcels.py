"""What ranks hand over to each other as bytes: no edge link would carry it, so the ledger does not book it."""

from collections.abc import Sequence

import numpy as np

from fedstil_mpi.comm.collectives import Collectives

BLOCK = 1 << 16
"""Bytes that MPI counts as one, because one of its counts ends at 2^31."""


def hand_over(world: Collectives, leaving: Sequence[tuple[int, bytes]], coming: Sequence[int]) -> list[np.ndarray]:
    """Send parcels, (to which rank, what), and receive one from each rank `coming`, uint8 [size], in this order.

    Of what one rank sends another the first is received first. All ranks that send or receive must call.
    """
    from mpi4py import MPI

    comm, what = world.comm, "what another rank hands over"
    sizes, numbers = [np.array([len(parcel)]) for _, parcel in leaving], [np.empty(1, np.int64) for _ in coming]
    requests = [comm.Irecv(number, rank) for number, rank in zip(numbers, coming, strict=True)]
    requests += [comm.Isend(size, rank) for size, (rank, _) in zip(sizes, leaving, strict=True)]
    world.wait_all(requests, what)
    block = MPI.BYTE.Create_contiguous(BLOCK).Commit()
    sent = [_in_blocks(len(parcel)) for _, parcel in leaving]
    for buffer, (_, parcel) in zip(sent, leaving, strict=True):
        buffer[: len(parcel)] = np.frombuffer(parcel, np.uint8)
    received = [_in_blocks(int(number[0])) for number in numbers]
    requests = [
        comm.Irecv([buffer, len(buffer) // BLOCK, block], rank) for buffer, rank in zip(received, coming, strict=True)
    ]
    requests += [
        comm.Isend([buffer, len(buffer) // BLOCK, block], rank) for buffer, (rank, _) in zip(sent, leaving, strict=True)
    ]
    world.wait_all(requests, what)
    block.Free()
    return [buffer[: int(number[0])] for buffer, number in zip(received, numbers, strict=True)]


def _in_blocks(size: int) -> np.ndarray:
    """Room for so many bytes in whole blocks, uint8."""
    return np.empty(-(-size // BLOCK) * BLOCK, np.uint8)
