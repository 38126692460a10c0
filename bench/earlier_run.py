"""One run by the code in a folder, whatever is installed: prints CPU seconds of round 2 and of the run, and its peak in bytes.

python bench/earlier_run.py FOLDER config.yaml [section.key=value ...]
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any


def main(root: Path, arguments: list[str]) -> None:
    sys.path.insert(0, str(root))
    import fedstil_mpi
    from fedstil_mpi import run
    from fedstil_mpi.federation import rounds

    assert Path(fedstil_mpi.__file__).is_relative_to(root)
    began: dict[int, float] = {}
    distribute = rounds.distribute

    def noted(f: Any, round: int, receivers: list[int]) -> None:
        if round == 1:
            began.clear()  # what came before was the plan's count
        began.setdefault(round, time.process_time())
        distribute(f, round, receivers)

    rounds.distribute = noted
    try:
        run.main(arguments)
    except SystemExit as end:
        if end.code:
            raise
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"round": began[3] - began[2], "run": time.process_time(), "peak": peak}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
