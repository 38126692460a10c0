"""Packs: a stream with all its images in one file that any number of ranks can read at the same time."""

from fedstil_mpi.data.pack.stream import PackStream
from fedstil_mpi.data.pack.target import check_target
from fedstil_mpi.data.pack.verify import verify
from fedstil_mpi.data.pack.writer import write_pack

__all__ = ["PackStream", "check_target", "verify", "write_pack"]
