"""Run one experiment.

    mpirun -n 6 python -m fedstil_mpi.run configs/quickstart.yaml [section.key=value ...]

Rank 0 is the server; the clients are spread over the other ranks (over rank 0 too, if it is the only one). The number
of ranks changes the speed, not the result. Exit code 0: done; 2: the input cannot be used, and one line says why; 75: a
signal (SIGUSR1, SIGTERM) asked it to stop, and `--resume` goes on; 74: the disk did not take a file, one line says
which, and `--resume` goes on; 1 and others: it failed, and `--resume` goes on from the last checkpoint. With
fault_tolerance=true, under mpirun --with-ft ulfm, a run goes on without ranks that have died.

To know the program, read on in federation/setup.py (from a config to server and clients), federation/rounds.py (what a
round does), client/local_training.py (how a client learns) and methods/fedstil/method.py (what is sent, and mixed).
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from fedstil_mpi import methods
from fedstil_mpi.comm.collectives import SET_UP
from fedstil_mpi.comm.start import start
from fedstil_mpi.comm.survival import check_survivable
from fedstil_mpi.comm.world import World
from fedstil_mpi.config import loading
from fedstil_mpi.config.command_line import Parser
from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.federation.shared_resources import SharedResources, open_shared_resources
from fedstil_mpi.launch.precision import settle
from fedstil_mpi.launch.signals import listening
from fedstil_mpi.results.writing.trackers import check_installed
from fedstil_mpi.util.clock import Moment
from fedstil_mpi.util.terminal import Detail, say

if TYPE_CHECKING:
    from fedstil_mpi.federation.plan import Plan
    from fedstil_mpi.planning.checked_output import CheckedOutput


def command_line() -> Parser:
    parser = Parser("fedstil_mpi.run", "Run one experiment.")
    parser.add_argument("config", help="a YAML file; see configs/")
    parser.add_overrides("come after the file")
    parser.add_argument("--resume", action="store_true", help="go on where this run was interrupted; as resume=auto")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quiet", dest="detail", action="store_const", const="brief", help="print two lines")
    how.add_argument(
        "--verbose", dest="detail", action="store_const", const="lines", help="a line a round, in a terminal, too"
    )
    parser.set_defaults(detail="usual")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command_line()
    parser.help_first(arguments)
    with start() as world, listening() as asked:
        with world.verdict():
            options = parser.parse(arguments)
            overrides = [*options.overrides, *(["resume=auto"] if options.resume else [])]
        run(world, options.config, overrides, asked, options.detail)


def run(world: World, config: str, overrides: list[str], asked: Callable[[], bool], detail: Detail) -> None:
    """Read a config and execute it. Collective: all ranks must call."""
    with world.verdict():
        source = loading.read(config, overrides) if world.is_server else None
    execute(world, world.broadcast_json(source), detail=detail, asked=asked)


def execute(
    world: World,
    source: dict[str, Any],
    before: SharedResources | None = None,
    *,
    detail: Detail = "usual",
    asked: Callable[[], bool] = lambda: False,
    thorough: bool = False,
) -> SharedResources:
    """Check, place, set up, run all rounds, report. Collective: all ranks must call.

    source: what `loading.read` gave on rank 0. before: what the last run of this process shared, which serves again where
    it fits. detail: how much is printed. asked: whether this rank was asked to stop.
    thorough: hold every checkpoint against what it was taken of. Returns what the next run may share.
    """
    began = Moment.now()
    draft = _draft(world, source)
    resources = open_shared_resources(world, draft, before)

    # From here on torch may be imported: CUDA_VISIBLE_DEVICES and the number of threads are settled.
    from fedstil_mpi.checkpoints.manager import CheckpointManager
    from fedstil_mpi.checkpoints.recovery import run_with_recovery
    from fedstil_mpi.checkpoints.store import CheckpointStore
    from fedstil_mpi.data.inspection.remarks import remarks
    from fedstil_mpi.planning import outcome
    from fedstil_mpi.planning.resident import libraries

    before_work = libraries(draft.model.backbone)
    plan = _plan(world, source, draft, resources)

    def stop() -> bool:
        world.check()  # a rank that has died ends training too
        return asked()

    with ExitStack() as holding:  # the run folder, on rank 0, to the end
        output, state, settings = _open_output(world, plan, resources, detail, holding)
        if state == "complete":
            return resources
        if output is not None and resources is not before:
            for line in remarks(resources.stream):
                say(line)
        store = CheckpointStore(plan.experiment.folder, settings)
        every = plan.experiment.checkpoint.every
        checkpoints = CheckpointManager(world, store, every, stop, at_once=draft.fault_tolerance, thorough=thorough)
        finish = partial(outcome.gather, world, libraries=before_work)
        # Sets up (federation/setup.py) and runs all rounds (federation/rounds.py), going back where ranks are lost.
        found = run_with_recovery(world, resources, plan, checkpoints, output, finish, began)
        if output is not None:
            output.finish(found)
            store.remove()
    return resources


def _draft(world: World, source: dict[str, Any]) -> Experiment:
    """The experiment as far as it can be checked before torch is imported. Collective."""
    with world.verdict():
        draft = loading.resolve(source)
        methods.check_name(draft.method.name)
        if draft.fault_tolerance:
            check_survivable(world)
        if world.is_server:
            check_installed(draft.tracking)
    timeout = draft.exchange.timeout
    world.timeout = None if timeout is None else max(timeout, SET_UP)
    return draft


def _plan(world: World, source: dict[str, Any], draft: Experiment, resources: SharedResources) -> "Plan":
    """All that the run knows before it has images and a model. Collective."""
    from fedstil_mpi.federation.effects import check_effects
    from fedstil_mpi.federation.plan import make_plan

    precision = settle(world, draft.model.precision, resources.placement.device)
    with world.verdict():
        method, experiment = methods.resolve(source)
        experiment.model.precision = precision
        check_effects(experiment, method)
        return make_plan(experiment, method, resources.stream)


def _open_output(
    world: World, plan: "Plan", resources: SharedResources, detail: Detail, holding: ExitStack
) -> "tuple[CheckedOutput | None, str, str]":
    """The run folder, on rank 0 and until `holding` closes; its state and the fingerprint of its checkpoints. Collective."""
    from fedstil_mpi.planning.checked_output import CheckedOutput

    output, known = None, None
    with world.verdict():
        if (rows := resources.placements) is not None:
            output = CheckedOutput(plan, resources.stream, rows, world.library, detail)
            holding.callback(output.close)
            known = output.state, output.folder.settings(plan.experiment)
    return output, *world.broadcast_json(known)


if __name__ == "__main__":
    main()
