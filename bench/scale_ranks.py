"""One run of bench/scale.py: rank 0 prints what each rank needed, as JSON. scale_ranks.py CONFIG section.key=value ..."""

import json
import sys
import time

from fedstil_mpi.comm.start import start
from fedstil_mpi.config import loading
from fedstil_mpi.run import execute

marks: list[tuple[float, float]] = []
"""CPU seconds of this process when it begins to train in a round, and when it has."""


def timed(train):
    def wrapper(*given):
        began = time.process_time()
        trained = train(*given)
        marks.append((began, time.process_time()))
        return trained

    return wrapper


def main() -> None:
    with start() as world:
        source = loading.read(sys.argv[1], sys.argv[2:]) if world.is_server else None

        def watch() -> bool:  # torch may be imported by now
            from fedstil_mpi.federation.trainer import OneByOne

            if not hasattr(OneByOne.train, "__wrapped__"):
                OneByOne.train = timed(OneByOne.train)
                OneByOne.train.__wrapped__ = True
            return False

        execute(world, world.broadcast_json(source), detail="brief", asked=watch)
        from fedstil_mpi.planning.resident import peak

        found = world.gather_json({"marks": marks, "peak": peak(), "cpu": time.process_time()})
        if world.is_server:
            print(json.dumps(found))


if __name__ == "__main__":
    main()
