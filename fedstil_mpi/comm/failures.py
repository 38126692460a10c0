"""How the work of a rank ends early."""

from fedstil_mpi.util.errors import INPUT_ERROR


class OrderlyEnd(SystemExit):
    """All ranks leave together, so MPI is finalised and nothing is aborted."""

    def __init__(self, code: int = INPUT_ERROR) -> None:
        super().__init__(code)


class Overdue(Exception):  # noqa: N818 - read in the message of the rank that waited
    """The others did not come in time."""


class RankLost(Exception):  # noqa: N818
    """Another rank has died."""


class GivenUp(BaseException):
    """Another rank has ended the job, and said why."""
