"""The end of a run: what every rank reports of it."""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from fedstil_mpi.client.learner import Learner
from fedstil_mpi.client.metric import save_metric
from fedstil_mpi.comm.world import World
from fedstil_mpi.federation.plan import Plan
from fedstil_mpi.federation.state import Federation
from fedstil_mpi.models import files
from fedstil_mpi.planning.resident import measure


@dataclass(frozen=True)
class Outcome:
    """Valid on rank 0; elsewhere empty."""

    timings: list[dict[str, float]]
    """`Clock.spent`, one dict a rank."""
    fingerprints: list[str]
    """One for each client."""
    measured: list[dict[str, Any]]
    """`resident.measure` of each rank."""


def gather(world: World, plan: Plan, f: Federation, libraries: int) -> Outcome:
    """After the last round; keeps the models if the config says so. Collective: all ranks must call.

    libraries: bytes of this process before any work.
    """
    there = f.clients.made()
    learners = [side.learner for side in there.values()]
    with ExitStack() as stack:
        for side in there.values():
            stack.enter_context(side.serving())
        models: dict[int, str] = {}
        for learner in learners:
            models[learner.client] = learner.fingerprint()
            f.release()
        fingerprints = world.gather_json([(client, models.get(client, "")) for client in f.clients]) or []
        done = measure(learners, libraries)  # what follows keeps what the rounds have made
        if plan.experiment.save_models:
            with world.verdict():
                tails = {learner.client: learner.tail for learner in learners if learner.draws}
                files.save_models(plan.experiment.folder, tails, "served")
                _save_metrics(plan.experiment.folder, learners)
                if world.is_server:
                    files.save_stem(plan.experiment.folder, f.initial_model.network.stem)
    timings = world.gather_json(f.clock.spent()) or []
    measured = world.gather_json(done) or []
    return Outcome(timings, [of_client for _, of_client in sorted(chain.from_iterable(fingerprints))], measured)


def _save_metrics(folder: Path, learners: Iterable[Learner]) -> None:
    """By which the clients' served models are compared, where it is not the cosine. Raises StorageError."""
    for learner in learners:
        if learner.draws and learner.metric is not None and (metric := learner.metric()) is not None:
            save_metric(files.metric_file(folder, learner.client), metric)
