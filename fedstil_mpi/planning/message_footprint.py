"""How much memory a rank needs for messages, and the buffers that they go through."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from fedstil_mpi.comm.ledger import DOWN, UP, Ledger
from fedstil_mpi.comm.places import ranks_of
from fedstil_mpi.federation.messages import MessageSchema
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.federation.waves import portions
from fedstil_mpi.methods.base import MethodModule
from fedstil_mpi.methods.federated import WEIGHTS


def largest_messages(
    method: MethodModule,
    schema: MessageSchema,
    schedule: Schedule,
    ledger: Ledger,
    clients_of: Sequence[Sequence[int]],
    shares: Sequence[float],
    at_once: int | None,
) -> list[int]:
    """Bytes, one number a rank: of each kind the largest that is there in a round, with the buffer it goes through, where it does.

    shares: of the server's columns, by rank. Within one process messages are handed over without buffers. at_once: as of
    `Places`; after each wave memory is given back, so that what comes does not add to what went.
    """
    parts = (*schema.traffic.down, *schema.traffic.up)
    ranks, buffers = len(clients_of), int(len(clients_of) > 1)
    shared = {
        (DOWN, part.kind) for part in (*schema.traffic.down, *schema.initial_model.parts(complete=True)) if part.shared
    }
    rank_of = ranks_of(clients_of)
    waves = _waves(method, schedule, ledger, at_once)
    common: Counter[str] = Counter()
    sums: defaultdict[tuple[str, str], defaultdict[tuple[int, int], int]] = defaultdict(lambda: defaultdict(int))
    for entry in ledger.entries:
        if (entry.direction, entry.kind) in shared:  # every rank has it once, the server also what it is copied from
            common[entry.kind] = max(common[entry.kind], entry.raw)
        else:
            sums[entry.direction, entry.kind][rank_of[entry.client], entry.round] += entry.raw
    columns = {part.kind for part in parts if part.columns}
    ragged = {part.kind for part in schema.traffic.up if part.ragged and not (part.columns and shares[0] < 1)}
    found = {way: [0] * ranks for way in (DOWN, UP)}
    for (direction, kind), of_kind in sums.items():
        of_server: Counter[int] = Counter()
        of_rank: Counter[int] = Counter()
        for (rank, round), raw in of_kind.items():
            of_wave = raw // waves.get(round, 1)
            of_server[round] += of_wave if kind == WEIGHTS or round > schedule.total else raw  # others are kept for all
            of_rank[rank] = max(of_rank[rank], of_wave)
        at_clients = buffers if direction == DOWN else 1 + buffers * (kind in ragged)
        for rank, share in enumerate(shares):
            part = share if kind in columns else float(rank == 0)
            found[direction][rank] += int(part * max(of_server.values())) + at_clients * of_rank[rank]
    together = max if at_once else sum
    return [
        common.total() * (1 + buffers * (rank == 0)) + together((found[DOWN][rank], found[UP][rank]))
        for rank in range(ranks)
    ]


def _waves(method: MethodModule, schedule: Schedule, ledger: Ledger, at_once: int | None) -> dict[int, int]:
    """Round, the closing one too -> in how many portions its messages travel."""
    waves = {round: len(portions(online, at_once)) for round, online in schedule.rounds()}
    told = sorted({entry.client for entry in ledger.entries if entry.round > schedule.total})
    by_turns = portions(told, schedule.clients_per_round if method.Server.in_parts else None)
    return waves | {schedule.total + 1: len(by_turns) * len(portions(by_turns[0], at_once))}
