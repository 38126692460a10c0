"""Run one experiment.

    mpirun -n 6 python -m fedstil_mpi.run configs/quickstart.yaml [section.key=value ...]

Rank 0 is the server; the clients are spread over the other ranks (over rank 0 too, if it is the only one). The number
of ranks changes the speed, not the result. Exit code 0: done; 2: the input cannot be used, and one line says why.
"""

import time
from collections.abc import Sequence
from itertools import chain
from typing import Any

from fedstil_mpi import configfile, methods
from fedstil_mpi.comm.world import World, start
from fedstil_mpi.commandline import Parser
from fedstil_mpi.results.run_folder import path_of
from fedstil_mpi.scene import Scene, open_scene


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser("fedstil_mpi.run", "Run one experiment.")
    parser.add_argument("config", help="a YAML file; see configs/")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="come after the file")
    parser.help_first(arguments)
    with start() as world:
        with world.verdict():
            options = parser.parse_args(arguments)
        run(world, options.config, options.overrides)


def run(world: World, config: str, overrides: list[str]) -> None:
    """Read a config and execute it. Collective: all ranks must call."""
    with world.verdict():
        source = configfile.read(config, overrides) if world.is_server else None
    execute(world, world.broadcast_json(source))


def execute(world: World, source: dict[str, Any], before: Scene | None = None, *, brief: bool = False) -> Scene:
    """Check, place, set up, run all rounds, report. Collective: all ranks must call.

    source: what `configfile.read` gave on rank 0. before: the scene that the last run of this process left, which
    serves again where it fits. brief: print two lines instead of tables. Returns the scene.
    """
    began = time.perf_counter()
    with world.verdict():
        draft = configfile.resolve(source)
        methods.check_name(draft.method.name)
    scene = open_scene(world, draft, before)

    # From here on torch may be imported: CUDA_VISIBLE_DEVICES and the number of threads are settled.
    from fedstil_mpi import federation, rounds
    from fedstil_mpi.planning import forecast
    from fedstil_mpi.planning.resident import libraries, measure
    from fedstil_mpi.results import models, report

    with world.verdict():
        method = methods.load(draft.method.name)
        plan = federation.make_plan(configfile.resolve(source, method.Options, method.PRESETS), method, scene.stream)
    with world.verdict():
        output = report.Report(plan, scene.seats, brief=brief) if scene.seats is not None else None
    before_work = libraries()
    federation.furnish(world, plan, scene)
    parts = federation.assemble(world, plan, scene)
    parts.clock.seconds["set-up"] = time.perf_counter() - began
    with world.verdict():
        if output is not None:
            output.begin(parts)
    rounds.run_rounds(parts)
    with world.verdict():
        if plan.experiment.save_models:
            tails = {client: side.learner.tail for client, side in parts.clients.items() if side.learner.draws}
            models.save_models(path_of(plan.experiment), tails, parts.contact.network.stem if world.is_server else None)
    seconds = world.gather_json(parts.clock.seconds)
    fingerprints = world.gather_json([client.learner.fingerprint() for client in parts.clients.values()])
    measured = world.gather_json(measure((client.learner for client in parts.clients.values()), before_work))
    if output is not None and seconds is not None and fingerprints is not None and measured is not None:
        predicted = forecast.make(plan, scene.stream, output.seats)
        output.end(seconds, list(chain.from_iterable(fingerprints)), predicted, measured)
    return scene


if __name__ == "__main__":
    main()
