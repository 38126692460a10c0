"""Starting MPI, which is imported only when `start` is entered, after its settings are in the environment."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fedstil_mpi.comm.guard import abort_on_error
from fedstil_mpi.comm.world import World
from fedstil_mpi.util.errors import InputError
from fedstil_mpi.util.terminal import open_output, say


@contextmanager
def start() -> Iterator[World]:
    """Start MPI; whatever fails inside the block on any rank ends the job (`abort_on_error`). Collective."""
    open_output()
    prepare_environment()
    try:
        world = _open_world()
    except InputError as error:
        say(str(error))
        raise SystemExit(error.code) from None
    with abort_on_error(world):
        yield world


def prepare_environment() -> None:
    """Let waiting ranks and waiting threads sleep, and give Open MPI the HOME that it does not start without.

    Before mpi4py and torch are imported; a user's setting wins.
    """
    home = os.path.expanduser("~")  # of the user database, where HOME is not set
    settings = {
        "HOME": home if os.path.isabs(home) else tempfile.gettempdir(),
        "OMPI_MCA_mpi_yield_when_idle": "1",
        "OMPI_MCA_threads_pthreads_yield_strategy": "nanosleep",
        "OMPI_MCA_threads_pthreads_nanosleep_time": "100000",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def load_mpi() -> Any:
    """mpi4py.MPI, whose import starts MPI. Raises InputError where that cannot be done."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: mpi4py is there, an MPI library is not
        raise InputError(
            f"MPI cannot be loaded ({error}): pip install 'fedstil-mpi[mpi]', or load MPI's module"
        ) from None
    return MPI


def _open_world() -> World:
    MPI = load_mpi()
    check_launch(MPI.COMM_WORLD.size, os.environ)
    same_host = MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED)
    world = World(MPI.COMM_WORLD.Dup(), same_host, ulfm=has_ulfm(os.environ))
    same_host.Free()
    return world


def has_ulfm(environment: Mapping[str, str]) -> bool:
    """Whether the launcher was set to let ranks outlive others, and the library can: Open MPI 5 with --with-ft ulfm.

    The library's functions are there, and work, without the launcher's consent too.
    """
    from mpi4py import MPI

    if environment.get("OMPI_MCA_mpi_ft_enable", "0").lower() not in ("1", "true", "yes", "enabled", "on"):
        return False
    try:
        MPI.COMM_WORLD.Get_failed().Free()
    except (AttributeError, NotImplementedError, MPI.Exception):
        return False
    return True


def check_launch(size: int, environment: Mapping[str, str]) -> None:
    """Raise InputError if several processes were started but each is a world of its own.

    That happens silently when the launcher and the MPI library do not know each other. What an MPI launcher says
    counts before what Slurm says: `mpirun -n 1` inside a larger allocation is a single rank on purpose.
    """
    names = [name for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS") if name in environment]
    if size == 1 and names and environment[names[0]] not in ("", "1"):
        raise InputError(
            f"{names[0]} is {environment[names[0]]}, but this process is the only rank of its MPI world: start with "
            "mpirun -n RANKS, or with an srun --mpi=... that this MPI library supports (mpirun -n 1 for a single rank)"
        )
