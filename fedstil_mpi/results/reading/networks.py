"""The images and the networks of a run or a config, to look at them again; needs torch, but no MPI."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedstil_mpi import methods
from fedstil_mpi.client.comparison import BY_COSINE, Comparison, load_comparison
from fedstil_mpi.config import loading
from fedstil_mpi.data.sources import open_original
from fedstil_mpi.data.streams.base import Stream
from fedstil_mpi.data.streams.dense import dense
from fedstil_mpi.federation.plan import Plan, make_plan
from fedstil_mpi.federation.start_model import build_network, warmup_images
from fedstil_mpi.federation.warm_up import warm_up
from fedstil_mpi.models.files import STEM, comparison_file, load_tail, model_file
from fedstil_mpi.models.network import Network
from fedstil_mpi.results import CONFIG_FILE
from fedstil_mpi.util.errors import InputError


@dataclass(frozen=True)
class Reopened:
    plan: Plan
    stream: Stream
    """With people numbered without gaps, as the classifier has them."""
    original: Stream
    """With the people's own ids."""


def reopen(path: Path, overrides: Sequence[str] = ()) -> Reopened:
    """What a run folder's config, or a config file, names. Raises InputError where it cannot be used, as without images."""
    file = path / CONFIG_FILE if path.is_dir() else path
    if not file.exists():
        problem = "holds no config.yaml" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {problem}; expected a run folder, or a YAML file")
    source = loading.read(file, list(overrides))
    method, experiment = methods.resolve(source)
    original = open_original(experiment.data, experiment.seed)
    stream = dense(original)
    return Reopened(make_plan(experiment, method, stream), stream, original)


def kept_model(folder: Path, client: int, view: str = "served") -> Path:
    """The file of a client's tail in a run folder. Raises InputError where the run has kept none."""
    file = model_file(folder, client, view)
    if not file.is_file():
        raise InputError(
            f"{folder} keeps no {file.name}: runs keep models with save_models=true; run it so under another name, or take "
            f"the start model, by {folder / 'config.yaml'}"
        )
    return file


def kept_comparison(plan: Plan, folder: Path, client: int, view: str, network: Network) -> Comparison:
    """How a run has searched a client's model after the last exchange, less what prototypes.metric=false and prototypes.norms=0
    take from it; before that exchange it was by the cosine. Raises InputError where its file cannot be read."""
    file, options = comparison_file(folder, client), plan.experiment.prototypes
    if view != "served" or not file.exists():
        return BY_COSINE
    found = load_comparison(file, network.tail)
    return found._replace(metric=found.metric if options.metric else None, norms=found.norms if options.norms else {})


def load_network(plan: Plan, stream: Stream, model: Path | None) -> Network:
    """The network of a config, with the tail of a model file; with the stem that lies beside it, if one does.

    Otherwise the stem is made as a run makes it, warm-up included. Raises InputError where that cannot be done.
    """
    stem = model.with_name(STEM) if model is not None and model.with_name(STEM).is_file() else None
    network = build_network(plan.experiment, plan.num_classes, weights="none" if stem else None)
    if stem is not None:
        load_tail(stem, network.stem)
    elif (images := warmup_images(plan, stream)) is not None:
        warm_up(network, images, plan.experiment.warmup, plan.experiment.seed)
    if model is not None:
        load_tail(model, network.tail)
    return network


def check_chosen(option: str, chosen: Sequence[int], count: int, what: str) -> None:
    """Raise InputError where a number that was given for an option is not one of so many."""
    for number in chosen:
        if not 0 <= number < count:
            remedy = f"expected 0 to {count - 1}" if count else "choose where there are some"
            raise InputError(f"{option} {number}, but there are {count} {what}; {remedy}")
