"""The end of a run: what every rank reports of it."""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from fedstil_mpi.client.comparison import BY_COSINE, save_comparison
from fedstil_mpi.client.learner import Learner
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
                _save_comparisons(plan.experiment.folder, learners)
                if world.is_server:
                    files.save_stem(plan.experiment.folder, f.initial_model.network.stem)
    timings = world.gather_json(f.clock.spent()) or []
    measured = world.gather_json(done) or []
    return Outcome(timings, [of_client for _, of_client in sorted(chain.from_iterable(fingerprints))], measured)


def _save_comparisons(folder: Path, learners: Iterable[Learner]) -> None:
    """How the clients' served models are searched, where it is not by the cosine of their features. Raises StorageError."""
    for learner in learners:
        if learner.draws and (comparison := learner.comparison()) is not BY_COSINE:
            save_comparison(files.comparison_file(folder, learner.client), comparison)
