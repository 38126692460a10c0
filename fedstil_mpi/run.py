"""Run one experiment.

    mpirun -n 6 python -m fedstil_mpi.run configs/quickstart.yaml [section.key=value ...]

Rank 0 is the server; the clients are spread over the other ranks (over rank 0 too, if it is the only one). The number
of ranks changes the speed, not the result. Exit code 0: done; 2: the input cannot be used, and one line says why; 75: a
signal (SIGUSR1, SIGTERM) asked it to stop, and `--resume` goes on; 1 and others: it failed, and `--resume` goes on from the
last checkpoint. With fault_tolerance=true, under mpirun --with-ft ulfm, a run goes on without ranks that have died.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from fedstil_mpi import configfile, methods
from fedstil_mpi.comm.survival import check_survivable, survive
from fedstil_mpi.comm.world import SET_UP, World, start
from fedstil_mpi.commandline import Parser
from fedstil_mpi.interrupts import listening
from fedstil_mpi.results.run_folder import fingerprint, path_of
from fedstil_mpi.scene import Scene, open_scene


def command_line() -> Parser:
    parser = Parser("fedstil_mpi.run", "Run one experiment.")
    parser.add_argument("config", help="a YAML file; see configs/")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="come after the file")
    parser.add_argument("--resume", action="store_true", help="go on where this run was interrupted; as resume=auto")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command_line()
    parser.help_first(arguments)
    with start() as world, listening() as asked:
        with world.verdict():
            options = parser.parse_intermixed_args(arguments)
            overrides = [*options.overrides, *(["resume=auto"] if options.resume else [])]
        run(world, options.config, overrides, asked)


def run(world: World, config: str, overrides: list[str], asked: Callable[[], bool]) -> None:
    """Read a config and execute it. Collective: all ranks must call."""
    with world.verdict():
        source = configfile.read(config, overrides) if world.is_server else None
    execute(world, world.broadcast_json(source), asked=asked)


def execute(
    world: World,
    source: dict[str, Any],
    before: Scene | None = None,
    *,
    brief: bool = False,
    asked: Callable[[], bool] = lambda: False,
) -> Scene:
    """Check, place, set up, run all rounds, report. Collective: all ranks must call.

    source: what `configfile.read` gave on rank 0. before: the scene that the last run of this process left, which
    serves again where it fits. brief: print two lines instead of tables. asked: whether this rank was asked to stop.
    Returns the scene.
    """
    began = time.perf_counter()
    with world.verdict():
        draft = configfile.resolve(source)
        methods.check_name(draft.method.name)
        if draft.fault_tolerance:
            check_survivable(world)
    timeout = draft.exchange.timeout
    world.timeout = None if timeout is None else max(timeout, SET_UP)
    scene = open_scene(world, draft, before)

    # From here on torch may be imported: CUDA_VISIBLE_DEVICES and the number of threads are settled.
    from fedstil_mpi import federation
    from fedstil_mpi.attempt import Attempts
    from fedstil_mpi.checkpoints.generations import Generations
    from fedstil_mpi.checkpoints.keeper import Keeper
    from fedstil_mpi.planning import forecast
    from fedstil_mpi.planning.resident import libraries
    from fedstil_mpi.results import report

    with world.verdict():
        method = methods.load(draft.method.name)
        plan = federation.make_plan(configfile.resolve(source, method.Options, method.PRESETS), method, scene.stream)
    with world.verdict():
        output = report.Report(plan, scene.seats, brief=brief) if scene.seats is not None else None
    state = world.broadcast_json(output.state if output is not None else None)
    if state == "complete":
        return scene

    def stop() -> bool:
        world.check()  # a rank that has died ends training too
        return asked()

    generations = Generations(path_of(plan.experiment), fingerprint(plan.experiment))
    keeper = Keeper(generations, plan.experiment.checkpoint.every, stop, at_once=draft.fault_tolerance)
    attempts = Attempts(world, scene, plan, keeper, output, libraries(), time.perf_counter() - began)
    outcome = survive(world, attempts.make) if draft.fault_tolerance else attempts.make()
    if output is not None:
        predicted = forecast.make(outcome.plan, scene.stream, output.seats)
        output.end(outcome.seconds, outcome.fingerprints, predicted, outcome.measured)
        generations.remove()
    return scene


if __name__ == "__main__":
    main()
