"""One run of bench/scale.py or bench/dealing.py: rank 0 prints what each rank needed, as JSON. scale_ranks.py CONFIG section.key=value ..."""

import json
import sys
import time
from pathlib import Path

from fedstil_mpi.comm.start import start
from fedstil_mpi.config import loading
from fedstil_mpi.run import execute

marks: list[tuple[float, float]] = []
"""CPU seconds of this process when it begins to train in a round, and these with what training then takes, in waves or not."""
rounds: list[int] = []
"""Whose they are."""
parcels: list[int] = []
"""Bytes of each client that left this process for another rank."""


def timed(train):
    def wrapper(trainer, round, *given):
        began = time.process_time()
        trained = train(trainer, round, *given)
        if round not in rounds:
            rounds.append(round)
            marks.append((began, began))
        first, until = marks[-1]
        marks[-1] = first, until + time.process_time() - began
        return trained

    return wrapper


def weighed(hand_over):
    def wrapper(world, leaving, coming):
        parcels.extend(len(parcel) for _, parcel in leaving)
        return hand_over(world, leaving, coming)

    return wrapper


def shared_elsewhere() -> int:
    """Bytes of this process's resident memory that are to be counted for others that share them."""
    lines = (line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    size = {name: 1024 * int(number) for name, number, _ in lines}
    return size["Rss:"] - size["Pss:"]


def main() -> None:
    with start() as world:
        source = loading.read(sys.argv[1], sys.argv[2:]) if world.is_server else None

        def watch() -> bool:  # torch may be imported by now
            from fedstil_mpi.federation import moving
            from fedstil_mpi.federation.trainer import OneByOne

            if not hasattr(OneByOne.train, "__wrapped__"):
                moving.hand_over = weighed(moving.hand_over)
                OneByOne.train = timed(OneByOne.train)
                OneByOne.train.__wrapped__ = True
            return False

        execute(world, world.broadcast_json(source), detail="brief", asked=watch)
        from fedstil_mpi.planning.resident import peak

        of_rank = {
            "marks": marks,
            "parcels": parcels,
            "peak": peak(),
            "shared": shared_elsewhere(),
            "cpu": time.process_time(),
        }
        found = world.gather_json(of_rank)
        if world.is_server:
            print(json.dumps(found))


if __name__ == "__main__":
    main()
