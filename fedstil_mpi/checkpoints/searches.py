"""What searches change of clients that did not take part: kept in one file, so that theirs, as large as models, need not be
written again whenever all clients are searched.
"""

from fedstil_mpi.checkpoints.store import Checkpoint
from fedstil_mpi.comm.world import World
from fedstil_mpi.federation.state import Federation
from fedstil_mpi.util.state_tree import State

NAME = "searches"


def gather(world: World, f: Federation, round: int) -> State | None:
    """Of all ranks' clients, on rank 0; None elsewhere. Collective: all ranks must call.

    round: after which they are as this says.
    """
    states = {str(client): f.search_state(client) for client in sorted(f.searched) if f.clients[client].learner.draws}
    gathered = world.gather_json(states)
    if gathered is None:
        return None
    return {"round": round, "clients": {client: state for of_rank in gathered for client, state in of_rank.items()}}


def read(checkpoint: Checkpoint) -> State:
    """What `gather` gave last."""
    return checkpoint.read(NAME) or {"round": 0, "clients": {}}


def bring_up_to_date(state: State, client: int, found: State) -> bool:
    """Let a client's state, as it was written last, be what it is after the searches `found`; returns whether there were any
    since then.
    """
    newer = found["clients"].get(str(client))
    if newer is None or state["round"] > found["round"]:
        return False
    state["learner"] |= newer["learner"]
    state["found"] = newer["found"]
    return True
