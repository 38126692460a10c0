"""How the work of a rank ends early."""

from fedstil_mpi.util.errors import INPUT_ERROR
from fedstil_mpi.util.terminal import NOBODY_READS


class OrderlyEnd(SystemExit):
    """All ranks leave together, so MPI is finalised and nothing is aborted."""

    def __init__(self, code: int = INPUT_ERROR) -> None:
        super().__init__(code)


class Overdue(Exception):  # noqa: N818 - read in the message of the rank that waited
    """The others did not come in time."""


class Unread(SystemExit):
    """Nobody reads what the program prints any more: it ends without a word."""

    def __init__(self) -> None:
        super().__init__(NOBODY_READS)


class RankLost(Exception):  # noqa: N818
    """Another rank has died."""


class GivenUp(BaseException):
    """Another rank has ended the job, and said why."""
