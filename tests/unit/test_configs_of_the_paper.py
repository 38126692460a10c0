"""The configs of the paper's experiments: their values, the plan they give, and the numbers in their comments."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from fedstil_mpi import methods
from fedstil_mpi.client.tasks import task_of_draw
from fedstil_mpi.comm.ledger import DOWN, UP
from fedstil_mpi.config import files, loading
from fedstil_mpi.config.schema import Experiment
from fedstil_mpi.data.streams.base import Stream
from fedstil_mpi.federation.messages import MessageSchema, message_schema
from fedstil_mpi.federation.plan import Plan, make_plan
from fedstil_mpi.federation.rounds import NoCheckpoints, run_rounds
from fedstil_mpi.models.network import Network, build, given
from fedstil_mpi.planning.counting import CountingTrainer
from fedstil_mpi.planning.forecast import bounds, counting_federation, counting_learners
from fedstil_mpi.planning.hollow import hollow

CONFIGS = Path(__file__).parents[2] / "configs"
PATHS = {
    f"{path.parent.name}/{path.stem}": path
    for folder in ("paper", "ablation", "backbone", "sweep")
    for path in sorted((CONFIGS / folder).glob("*.yaml"))
}
PRESETS = ("paper", "reference_code")

FEDSTIL = {"alpha": 0.9, "tying": 1e-4, "forgetting": 0.8, "step": 10, "memory": 18000}
FEDWEIT = {"sparsity": 5e-6, "drift": 1e-3, "mask_sparsity": 0.0, "knowledge": 5}
WIDER = {"memory": 12000, "tying": 1e-3}
VALUES: dict[str, tuple[str, dict]] = {
    "paper/sm": ("single", {}),
    "paper/mm": ("multi", {}),
    "paper/ewc": ("ewc", {"penalty": 50}),
    "paper/mas": ("mas", {"penalty": 0.01}),
    "paper/icarl": ("icarl", {"memory": 12000}),
    "paper/fedavg": ("fedavg", {}),
    "paper/fedprox": ("fedprox", {"mu": 2 * 1e-5}),  # the reference code has no half
    "paper/fedcurv": ("fedcurv", {"penalty": 50}),
    "paper/fedweit": ("fedweit", FEDWEIT),
    "paper/fedstil": ("fedstil", FEDSTIL),
    "paper/fedstil_atten": ("fedstil_atten", {"tying": 1e-5, "memory": 18000}),
    "ablation/wo_al": ("fedstil", FEDSTIL | {"alpha": 1}),
    "ablation/wo_st": ("fedstil", FEDSTIL | {"relevance": "none"}),
    "ablation/wo_pr": ("fedstil", FEDSTIL | {"memory": 0}),
    "ablation/wo_pt": ("fedstil", FEDSTIL | {"tying": 0}),
    "backbone/fedstil_res18": ("fedstil", FEDSTIL | {"memory": 12000}),
    "backbone/fedstil_res50": ("fedstil", FEDSTIL | WIDER),
    "backbone/fedstil_swin": ("fedstil", FEDSTIL | WIDER),
    "backbone/fedweit_res18": ("fedweit", FEDWEIT),
    "backbone/fedweit_res50": ("fedweit", FEDWEIT),
    "backbone/fedweit_swin": ("fedweit", FEDWEIT | {"drift": 1e-5}),
    "backbone/fedcurv_res18": ("fedcurv", {"penalty": 50}),
    "backbone/fedcurv_res50": ("fedcurv", {"penalty": 10}),
    "backbone/fedcurv_swin": ("fedcurv", {"penalty": 5}),
    **{f"sweep/fedstil_a_{i}": ("fedstil", FEDSTIL | {"alpha": i / 10}) for i in range(11)},
    **{f"sweep/fedstil_k_{i}": ("fedstil", FEDSTIL | {"memory": 2000 * i}) for i in range(11)},
}
"""The paper's experiments: method, its options and the size of its memory ("memory")."""

IMAGES = {"train": 8, "query": 2, "gallery": 8}
"""Split -> images of each person in a task."""


class Made(Stream):
    """Five clients with six tasks of 256 people each, which no other client and no other task has."""

    clients, tasks = 5, 6

    def task(self, client, task):
        raise AssertionError("a plan looks at no image")

    def pids(self, client, task):
        return 256 * (self.tasks * client + task) + np.arange(256)

    def labels(self, client, task):
        return {split: self.pids(client, task).repeat(count) for split, count in IMAGES.items()}


STREAM = Made()


@cache
def source(name: str) -> dict:
    return loading.read(PATHS[name])


@cache
def resolved(name: str, preset: str) -> Experiment:
    """The experiment in one of the files, with another preset as if the command line named it."""
    tree = source(name)
    method = methods.load(tree["method"]["name"])
    return loading.resolve(tree | {"method": tree["method"] | {"preset": preset}}, method.Options, method.PRESETS)


def planned(experiment: Experiment) -> Plan:
    return make_plan(experiment, methods.load(experiment.method.name), STREAM)


@cache
def network(backbone: str, num_classes: int, height: int, width: int, last_stride: int, neck: str) -> Network:
    """The start model without values, of which clients have all but the classifier."""
    with torch.device("meta"):
        start = build(backbone, num_classes=num_classes, image_size=(height, width), last_stride=last_stride, neck=neck)
    return replace(start, provided=given(start))


def messages(experiment: Experiment) -> MessageSchema:
    """What travels between five clients and the server."""
    plan, model, data = planned(experiment), experiment.model, experiment.data
    assert (model.weights, model.split) == ("imagenet", None)
    start = network(model.backbone, plan.num_classes, data.height, data.width, model.last_stride, model.neck)
    return message_schema(experiment, plan.method, STREAM.clients, start)


class Steps(CountingTrainer):
    """Counts the images that are trained on, apart from those that are passed for importances."""

    images = 0

    def train(self, round, clients, efforts, stop):
        before = sum(client.learner.forward_counts["train"] for client in clients)
        epochs = super().train(round, clients, efforts, stop)
        self.images += sum(client.learner.forward_counts["train"] for client in clients) - before
        return epochs


def costs(name: str) -> str:
    """What a file's comment has to say of bytes and work."""
    experiment = resolved(name, "paper")
    plan, schema = planned(experiment), messages(experiment)
    f = counting_federation(plan, STREAM, hollow(schema.initial_model.network), schema)
    f.trainer = trainer = Steps()
    run_rounds(f, NoCheckpoints())
    ledger = f.exchange.ledger
    down, up = (ledger.total(way, client=0) for way in (DOWN, UP))
    assert ledger.total(DOWN) + ledger.total(UP) == 5 * (down + up)
    packed = any(part.codec != "dense" for part in (*schema.traffic.down, *schema.traffic.up))
    bound = bounds(experiment)["stem"]
    steps = trainer.images / experiment.train.batch
    stem = sum(learner.forward_counts["stem"] for learner in counting_learners(f).values())
    memory = experiment.memory.size * 4 * schema.setup.representation
    kept = f"; a full memory takes {_megabytes(memory)} a client" if memory else ""
    return (
        f"{'At most ' if packed else ''}{_megabytes(down)} down and {_megabytes(up)} up a client, "
        f"{_megabytes(5 * (down + up))} in all{kept}. "
        f"About {round(steps, -3):,.0f} optimiser steps, {'' if bound == 'exactly' else bound + ' '}{stem:,} stem passes."
    )


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.3f} MB"


def comment(name: str) -> str:
    """The lines before the first key, as one."""
    lines = PATHS[name].read_text().splitlines()
    above = lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]
    return " ".join(" ".join(line.removeprefix("#") for line in above).split())


def own(name: str) -> set[str]:
    """The keys that a file sets itself, "section.key"."""
    tree = files.parse(PATHS[name])
    return {f"{section}.{key}" for section, keys in tree.items() if isinstance(keys, dict) for key in keys}


def value(experiment: Experiment, key: str) -> object:
    section, name = key.split(".")
    return getattr(experiment.method.options if section == "method" else getattr(experiment, section), name)


# -- the files ---------------------------------------------------------------------------------------------------------


def test_every_experiment_of_the_paper_has_a_file_and_a_name_of_its_own():
    assert PATHS.keys() == VALUES.keys() | {"paper/base"}
    assert len({source(name)["name"] for name in VALUES}) == len(VALUES) == 46


def test_every_file_is_small_says_what_it_is_and_extends_another():
    for name, path in PATHS.items():
        assert len(comment(name)) > 100, name
        assert ("extends" in files.parse(path)) == (name != "paper/base"), name
        assert len(path.read_text().splitlines()) < (40 if name == "paper/base" else 20), name


@pytest.mark.parametrize(
    "folder", ["paper", "backbone", *(pytest.param(name, marks=pytest.mark.long) for name in ("ablation", "sweep"))]
)
def test_numbers_in_the_comment(folder):
    for name in (name for name in VALUES if name.startswith(folder)):
        assert costs(name) in comment(name), name


def test_the_stream_that_the_numbers_are_for_is_described():
    described = (
        f"{STREAM.clients} clients x {STREAM.tasks} tasks of {len(STREAM.pids(0, 0))} people, of each {IMAGES['train']} "
        f"images to train on, {IMAGES['query']} to search for and {IMAGES['gallery']} to search in"
    )
    assert described in comment("paper/base")


# -- their values ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def experiments() -> dict[tuple[str, str], Experiment]:
    """All of VALUES, by file and preset."""
    return {(name, preset): resolved(name, preset) for name in VALUES for preset in PRESETS}


def test_values_under_both_presets(experiments):
    for (name, preset), experiment in experiments.items():
        method, expected = VALUES[name]
        found = vars(experiment.method.options) | {"memory": experiment.memory.size}
        assert (experiment.method.name, experiment.method.preset) == (method, preset)
        assert {key: found[key] for key in expected} == expected, name


def test_common_values_and_plan(experiments):
    """60 rounds of all five clients, ten a task, five epochs a round, every task searched every ten rounds."""
    for (name, _), experiment in experiments.items():
        plan, train = planned(experiment), experiment.train
        schedule = plan.schedule
        assert (schedule.total, schedule.clients, schedule.tasks, schedule.seed) == (60, 5, 6, 123), name
        assert all(online == [0, 1, 2, 3, 4] for _, online in schedule.rounds()), name
        tasks = [task_of_draw(number, schedule.per_task, schedule.tasks) for number, _ in schedule.rounds()]
        assert tasks == [task for task in range(6) for _ in range(10)], name
        searched = [number for number, _ in schedule.rounds() if schedule.evaluates(number)]
        assert searched == [10, 20, 30, 40, 50, 60], name
        assert (train.steps, train.epochs, train.batch, train.augment) == (0, 5, 64, "default"), name
        assert (train.lr, train.weight_decay, train.label_smoothing) == (1e-3, 1e-5, 0.1), name
        assert (experiment.evaluation.tasks, experiment.data.kind) == ("all", "folder"), name
        assert (experiment.warmup.steps, experiment.prototypes.exchange) == (0, False), name
        assert plan.num_classes == (7680 if name == "paper/icarl" else 8000), name


def test_backbone_and_size_of_images(experiments):
    sizes = {"res50": ("resnet50", 128, 64), "swin": ("swin_t", 224, 224)}
    for (name, _), experiment in experiments.items():
        found = (experiment.model.backbone, experiment.data.height, experiment.data.width)
        assert found == sizes.get(name.rpartition("_")[2], ("resnet18", 128, 64)), name
        assert (experiment.model.last_stride, experiment.model.neck) == (1, "bnneck"), name


def test_the_default_is_the_corrected_behaviour(experiments):
    for (name, preset), experiment in experiments.items():
        assert source(name)["method"]["preset"] == "paper", name
        assert experiment.evaluation.protocol == {"paper": "market", "reference_code": "reference_code"}[preset], name


def test_the_command_line_gives_the_reference_code():
    by_hand = loading.read(PATHS["paper/fedstil"], ["method.preset=reference_code"])
    fedstil = methods.load("fedstil")
    assert loading.resolve(by_hand, fedstil.Options, fedstil.PRESETS) == resolved("paper/fedstil", "reference_code")


def test_files_override_of_a_preset_only_what_they_are_about(experiments):
    """Keys of a file lie above those of the preset, so whatever a preset sets must not stand in a file below."""
    for (name, preset), experiment in experiments.items():
        method = experiment.method.name
        settings = methods.load(method).PRESETS[preset].items()
        differ = {key for key, set_to in settings if value(experiment, key) != set_to}
        known = {"method.sparsity", "method.drift"} if (method, preset) == ("fedweit", "paper") else set()
        assert differ == known if name.startswith("paper/") else differ <= own(name) | known, name


# -- what travels ------------------------------------------------------------------------------------------------------

LEARN = {"resnet18": 12_489_728, "resnet50": 31_348_736, "swin_t": 20_327_856}
"""Parameters of the tail that learn."""
ADAPT = {"resnet18": 12_484_608, "resnet50": 31_326_208, "swin_t": 20_299_776}
"""Weights of its convolutions and linear layers."""
TOKEN = {"resnet18": 8192, "resnet50": 32_768, "swin_t": 37_632}
TRAVEL = [name for name in VALUES if not name.startswith("sweep/")]
"""A sweep's files send what FedSTIL's sends."""


def sent_by_reference_code(method: str, backbone: str) -> tuple[int, int]:
    """Scalars that the reference code sends to a client, and gets from it, in a round after the first."""
    learn, adapt, clients, bank = LEARN[backbone], ADAPT[backbone], 5, 5
    return {
        "fedavg": (learn, learn + 1),
        "fedprox": (learn, learn + 1),
        "fedcurv": (learn + 2 * clients * learn, 2 * learn + 1),
        "fedweit": (adapt + bank * adapt, 2 * adapt + 1),
        "fedstil": (adapt, adapt + TOKEN[backbone] + 1),
        "fedstil_atten": (clients * adapt, adapt + TOKEN[backbone] + 1),
    }.get(method, (0, 0))


def test_the_reference_preset_sends_what_the_reference_code_sends(experiments):
    for name in TRAVEL:
        experiment = experiments[name, "reference_code"]
        traffic = messages(experiment).traffic
        expected = (0, 0)
        if name != "ablation/wo_st":
            expected = sent_by_reference_code(experiment.method.name, experiment.model.backbone)
        assert tuple(sum(part.scalars for part in parts) for parts in (traffic.down, traffic.up)) == expected, name
        assert not any(part.ragged for part in (*traffic.down, *traffic.up)), name


def test_first_contact_is_the_classifier(experiments):
    """All clients have the rest from the shared checkpoint."""
    for name in TRAVEL:
        experiment = experiments[name, "paper"]
        length = {"resnet18": 512, "resnet50": 2048, "swin_t": 768}[experiment.model.backbone]
        (part,) = messages(experiment).initial_model.parts(complete=True)
        assert (part.kind, part.scalars) == ("model", planned(experiment).num_classes * length), name
