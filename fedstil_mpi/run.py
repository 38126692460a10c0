"""Run one experiment.

    mpirun -n 6 python -m fedstil_mpi.run configs/quickstart.yaml [section.key=value ...]

Rank 0 is the server; the clients are spread over the other ranks (over rank 0 too, if it is the only one). The number
of ranks changes the speed, not the result. Exit code 0: done; 2: the input cannot be used, and one line says why.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from itertools import chain
from typing import NoReturn

from fedstil_mpi import configfile, methods
from fedstil_mpi.comm.world import World, start
from fedstil_mpi.data.sources import open_stream
from fedstil_mpi.errors import InputError
from fedstil_mpi.placement import table, take_seat


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; expected {self.format_usage().removeprefix('usage: ').strip()}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _Parser(prog="python -m fedstil_mpi.run", description="Run one experiment.")
    parser.add_argument("config", help="a YAML file; see configs/")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="come after the file")
    if arguments is None and not {"-h", "--help"}.isdisjoint(sys.argv):
        parser.parse_args()
    with start() as world:
        with world.verdict():
            options = parser.parse_args(arguments)
        run(world, options.config, options.overrides)


def run(world: World, config: str, overrides: list[str]) -> None:
    """Read, check, place, set up, run all rounds, report. Collective: all ranks must call."""
    began = time.perf_counter()
    with world.verdict():
        source = configfile.read(config, overrides) if world.is_server else None
    source = world.broadcast_json(source)
    with world.verdict():
        draft = configfile.resolve(source)
        methods.check_name(draft.method.name)
        stream = open_stream(draft.data, draft.seed)
    with world.verdict():
        seat = take_seat(
            world,
            stream.clients,
            device=draft.placement.device,
            gpus_per_node=draft.placement.gpus_per_node,
            threads=draft.placement.threads,
        )
    seats = world.gather_json(table([seat])[0])

    # From here on torch may be imported: CUDA_VISIBLE_DEVICES and the number of threads are settled.
    from fedstil_mpi import federation, rounds
    from fedstil_mpi.prediction import predict
    from fedstil_mpi.results import report

    with world.verdict():
        method = methods.load(draft.method.name)
        plan = federation.make_plan(configfile.resolve(source, method.Options, method.PRESETS), method, stream)
    with world.verdict():
        output = report.Report(plan, seats) if seats is not None else None
    with world.verdict():
        tasks = federation.load_tasks(stream, seat.clients)
    network = federation.start_network(world, plan, stream, seat)
    parts = federation.assemble(world, plan, seat, tasks, network)
    parts.clock.seconds["set-up"] = time.perf_counter() - began
    with world.verdict():
        if output is not None:
            output.begin(parts)
    rounds.run_rounds(parts)
    seconds = world.gather_json(parts.clock.seconds)
    fingerprints = world.gather_json([client.learner.fingerprint() for client in parts.clients.values()])
    if output is not None and seconds is not None and fingerprints is not None:
        predicted = predict(plan.schedule, parts.contact.parts, parts.traffic, stream.people)
        output.end(seconds, list(chain.from_iterable(fingerprints)), predicted)


if __name__ == "__main__":
    main()
