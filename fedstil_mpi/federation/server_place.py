"""Where what is as large as all clients' weights is kept: the server's part on rank 0, or by columns on all ranks; in memory or,
of clients that are away, in files.
"""

from typing import NamedTuple

from fedstil_mpi.comm.columns import share_out
from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.federation.messages import MessageSchema
from fedstil_mpi.methods.base import MethodModule
from fedstil_mpi.util.errors import InputError

LARGE = 1 << 30
"""Bytes of all clients' travelling weights."""
AT_ONCE = 1 << 27
"""Bytes of the travelling weights of a rank's clients that are in memory together, where models lie in files: what training and
messages take is about four times as much."""


class Places(NamedTuple):
    """What the config's placement comes to, `auto` settled."""

    shared: bool
    """Whether all ranks share what the server keeps of all clients' weights."""
    in_files: bool
    """Whether weights of clients that sit rounds out lie in files."""
    at_once: int | None = None
    """How many online clients have their models in memory at a time, where more are drawn; None: all."""

    def shares(self, scalars: int, ranks: int) -> list[float]:
        """What each rank keeps of what is so long: all on rank 0, or its columns."""
        if not self.shared:
            return [1.0] + [0.0] * (ranks - 1)
        return [(columns.stop - columns.start) / scalars for columns in share_out(scalars, ranks)]


def places(experiment: Experiment, method: MethodModule, schema: MessageSchema, ranks: int) -> Places:
    """Alike on all of so many ranks. Raises InputError where they should share the server and cannot, on one rank, too."""
    shared, in_files = _is_shared(experiment, method, schema, ranks), _lies_in_files(experiment, schema)
    return Places(shared, in_files, _in_memory_at_once(experiment, method, schema, ranks) if in_files else None)


def _is_shared(experiment: Experiment, method: MethodModule, schema: MessageSchema, ranks: int) -> bool:
    wanted = experiment.placement.server
    if wanted == "rank_0" or not schema.traffic.up:
        return False
    possible = method.Server.by_columns(experiment.method.options) and not schema.codecs.any
    if wanted == "all_ranks" and not possible:
        raise InputError(
            f"placement.server = all_ranks, which {experiment.method.name} with these settings and codecs cannot; set "
            "placement.server=auto"
        )
    return ranks > 1 and possible and (wanted == "all_ranks" or held(schema) >= LARGE)


def _lies_in_files(experiment: Experiment, schema: MessageSchema) -> bool:
    wanted = experiment.placement.away
    return wanted == "files" or (wanted == "auto" and held(schema) >= LARGE)


def _in_memory_at_once(experiment: Experiment, method: MethodModule, schema: MessageSchema, ranks: int) -> int | None:
    if not method.Server.in_parts:
        return None
    of_rank = max(1, AT_ONCE // (4 * schema.setup.layout.scalars))
    at_once = experiment.placement.at_once or of_rank * max(1, ranks - 1)
    return at_once if (experiment.rounds.clients_per_round or schema.setup.clients) > at_once else None


def held(schema: MessageSchema) -> int:
    """Bytes of all clients' travelling weights."""
    return 4 * schema.setup.clients * schema.setup.layout.scalars
