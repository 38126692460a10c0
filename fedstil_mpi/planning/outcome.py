"""The end of a run: what every rank reports of it."""

from collections.abc import Iterator
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
    models = {learner.client: learner.fingerprint() for learner in _served(f)}
    fingerprints = world.gather_json([(client, models.get(client, "")) for client in f.clients]) or []
    done = measure((side.learner for side in f.clients.made().values()), libraries)  # what follows keeps what was made
    if plan.experiment.save_models:
        with world.verdict():
            for learner in _served(f):
                _save(plan.experiment.folder, learner)
            if world.is_server:
                files.save_stem(plan.experiment.folder, f.initial_model.network.stem)
    timings = world.gather_json(f.clock.spent()) or []
    measured = world.gather_json(done) or []
    return Outcome(timings, [of_client for _, of_client in sorted(chain.from_iterable(fingerprints))], measured)


def _served(f: Federation) -> Iterator[Learner]:
    """This rank's clients, one after the other, each with the model that it is searched with until the next is asked for."""
    for side in f.clients.made().values():
        with side.serving():
            yield side.learner
        f.release()


def _save(folder: Path, learner: Learner) -> None:
    """The served model, and how it is searched where that is not by the cosine of its features. Raises StorageError."""
    if not learner.draws:
        return
    files.save_tail(files.model_file(folder, learner.client), learner.tail)
    if (comparison := learner.comparison()) is not BY_COSINE:
        save_comparison(files.comparison_file(folder, learner.client), comparison)
