"""What is predicted of a run beside its bytes (test_ledger.py): passes, memory, files; and the command that prints it."""

import cProfile
import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fedstil_mpi import methods, plan
from fedstil_mpi.client.rehearsal import Memory, Samples
from fedstil_mpi.comm.flat import Part
from fedstil_mpi.comm.ledger import DOWN, UP, Ledger
from fedstil_mpi.config.schema import Data, Placement
from fedstil_mpi.config.synthetic import SyntheticOptions
from fedstil_mpi.data.pack.export import write_folder
from fedstil_mpi.data.sources import open_stream
from fedstil_mpi.data.streams.base import SPLITS
from fedstil_mpi.data.streams.pku import PkuStream
from fedstil_mpi.evaluation.scopes import Scopes
from fedstil_mpi.federation.schedule import Schedule
from fedstil_mpi.federation.server_place import Places
from fedstil_mpi.federation.start_model import blank_network
from fedstil_mpi.methods.base import Traffic
from fedstil_mpi.models.activations import measure_passing
from fedstil_mpi.models.network import build
from fedstil_mpi.planning import forecast, plan_tables
from fedstil_mpi.planning.counting import CountingLearner, CountingMemory, CountingTrainer, tasks_without_pixels
from fedstil_mpi.planning.footprint import OBJECTS, PAGES, Footprint
from fedstil_mpi.planning.hollow import hollow
from fedstil_mpi.util.errors import InputError
from support import TINY, played, tiny
from support.cases import EPOCHS
from support.forecasts import CLASSES, make

# -- labels without images ---------------------------------------------------------------------------------------------


def streams(folder):
    data = Data(height=32, width=16, tasks=2, synthetic=SyntheticOptions(clients=3, people_per_task=3, train_images=2))
    synthetic = open_stream(data, 1)
    yield synthetic
    yield open_stream(replace(data, clients=[2, 0]), 1)
    yield open_stream(replace(data, pooled=True), 1)
    write_folder(synthetic, folder / "folder")
    yield open_stream(replace(data, kind="folder", path=str(folder / "folder")), 1)
    (folder / "pku").mkdir()
    for value, (person, camera, frame) in enumerate(np.ndindex(10, 2, 3)):
        pixels = np.full((8, 4, 3), value, np.uint8)
        Image.fromarray(pixels).save(folder / "pku" / f"{person + 1:03}_{camera + 1:02}_{frame}.png")
    yield PkuStream(folder / "pku", height=8, width=4, seed=1, tasks=2, train_images=1)


def test_labels_are_those_of_the_images(tmp_path):
    for stream in streams(tmp_path):
        for client, number in np.ndindex(stream.clients, stream.tasks):
            labels, images = stream.labels(client, number), stream.task(client, number)
            assert set(labels) == set(SPLITS)
            for split in SPLITS:
                assert labels[split].dtype == np.int64
                assert np.array_equal(labels[split], getattr(images, split).pids), type(stream)


# -- forward passes ----------------------------------------------------------------------------------------------------


SETTINGS = {
    "house": {},
    "epochs": EPOCHS,
    "each task a view": {"train.refresh": "task"},
    "each epoch a view": {"train.refresh": "epoch", **EPOCHS},
    "steps over several epochs": {"train.refresh": "epoch", "train.steps": 7},
    "no augmentation": {"train.augment": "none"},
    "crop alone": {"train.augment": "none", "train.crop_pad": 2, "memory.size": 0},
    "colours alone": {"train.augment": "none", "train.colour_jitter": 0.2, "train.refresh": "epoch", **EPOCHS},
    "no memory": {"memory.size": 0},
    "no memory, no augmentation": {"memory.size": 0, "train.augment": "none"},
    "shuffled into one": {"memory.share": None, **EPOCHS},
    "as the reference code": {"memory.share": None, "memory.herding": "repeat", "memory.labels": "collide", **EPOCHS},
    "a memory for few": {"memory.size": 5, "memory.share": None, "memory.quota": "width", **EPOCHS},
    "all tasks": {"evaluation.tasks": "all"},
    "in the global gallery alone": {"evaluation.gallery": "all", "evaluation.tasks": "all"},
    "prototypes": {"prototypes.exchange": True},
    "prototypes, compared by the cosine": {"prototypes.exchange": True, "prototypes.metric": False},
    "prototypes alone": {"prototypes.exchange": True, "memory.size": 0, "memory.share": None, **EPOCHS},
}


@pytest.mark.parametrize("drawn", [2, pytest.param(3, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", SETTINGS)
def test_forward_passes_are_those_of_the_learners(name, drawn):
    settings = {"rounds.per_task": 2, "memory.size": 7, "train.steps": 3, "train.batch": 4} | SETTINGS[name]
    schedule = Schedule(3, clients=3, tasks=3, per_task=2, total=7, clients_per_round=drawn, evaluate_every=3)
    config = tiny.experiment(settings)
    real, counted = (played.learners(engine(config, played.THREE, schedule)) for engine in (played.play, played.count))
    assert [learner.forward_counts for learner in counted] == [learner.forward_counts for learner in real]
    recalled = [learner.memory.recall() for learner in real]
    stored = [sum(map(len, learner.relayed)) for learner in real]
    stored = [relayed + (0 if own is None else len(own)) for relayed, own in zip(stored, recalled, strict=True)]
    assert [learner.stored for learner in counted] == stored
    assert [set(learner.views.made) for learner in counted] == [set(learner.views.made) for learner in real]


def counting(settings, *tasks):
    """A learner that counts; tasks: the training people's ids, an entry an image, with 2 queries and a gallery of 3."""
    zeros = np.zeros(3, np.int64)
    labels = [{"train": np.array(task), "query": zeros[:2], "gallery": zeros} for task in tasks]
    stream = SimpleNamespace(tasks=len(tasks), labels=lambda client, task: labels[task])
    return CountingLearner(0, tiny.experiment(settings), tasks_without_pixels(stream, 0, 16, 8), hollow(tiny.network()))


def trained(learner):
    learner.begin_round()
    learner.count_training(learner.draws, 1.0)
    return learner


def test_forward_passes_by_hand():
    """Two rounds of 3 steps on 5 images in batches of 4: 4 + 1 + 4; the memory and one search take the rest."""
    settings = {"train.steps": 3, "train.batch": 4, "memory.size": 4, "rounds.per_task": 2}
    learner = trained(counting(settings, [8, 8, 9, 9, 9], [9, 9]))
    assert learner.forward_counts == {"stem": 5 + 5, "train": 4 + 4 + 4, "search": 5}  # a batch of one image is dropped
    CountingTrainer().search(learner, None).evaluate(Scopes(["task", "client"]), None)
    assert learner.forward_counts == {"stem": 10 + 5, "train": 12, "search": 5 + 5}
    trained(learner)
    assert learner.forward_counts == {"stem": 15 + 5, "train": 24, "search": 10 + 5}
    assert learner.memory.counts == {8: 2, 9: 2}
    trained(
        learner
    )  # the second task: 2 exemplars of person 8 are old, half of each batch; 2 new images make one batch
    assert learner.forward_counts["train"] == 24 + 3 * (2 + 2)
    assert learner.memory.counts == {8: 2, 9: 2}


@pytest.mark.parametrize("quota", ["seen", "width"])
@pytest.mark.parametrize("herding", ["distinct", "repeat"])
def test_exemplars_are_those_of_the_memory(herding, quota):
    tasks = [[0, 0, 0, 1, 1, 1, 1], [1, 1, 2, 2, 2], [5, 6, 6, 6, 7, 8]]
    counted = CountingMemory(9, repeat=herding == "repeat", quota=quota)
    memory = Memory(9, repeat=herding == "repeat", quota=quota)
    for task in tasks:
        pids = torch.tensor(task)
        memory.store(Samples(torch.zeros(len(task), 1), pids, pids), torch.zeros(len(task), 1))
        counted.count(Counter(task))
        recalled = memory.recall()
        assert +Counter(counted.counts) == (Counter(recalled.pids.tolist()) if recalled is not None else Counter())


@pytest.mark.parametrize(("size", "forgotten"), [(0, 0), (2, 1), (3, 0)])
def test_a_memory_for_fewer_than_a_client_meets_is_warned_of(size, forgotten):
    learner = trained(counting({"memory.size": size}, [7, 7, 8, 9]))
    lines = plan_tables.warnings(
        SimpleNamespace(learners={0: trained(counting({"memory.size": size}, [7, 7])), 1: learner})
    )
    assert len(lines) == bool(forgotten)
    assert all(
        "memory.size = 2" in line and "of the 3 people" in line and "set memory.size to 3" in line for line in lines
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ("exactly", "exactly", "exactly")),
        ({"train.early_stop": True}, ("exactly", "at most", "exactly")),
        ({"train.early_stop": True, "train.refresh": "epoch"}, ("at most", "at most", "exactly")),
    ],
)
def test_what_cannot_be_known_is_said(settings, expected):
    assert tuple(forecast.bounds(tiny.experiment({"train.steps": 0} | settings)).values()) == expected


def test_differences_name_what_does_not_fit():
    learner = counting({}, [1])
    learner.forward_counts = Counter(stem=10, train=20)
    bounds = {"stem": "exactly", "train": "at most"}
    schedule = Schedule(1, 1, 1, 1, 1, 1, 1)
    here = Places(shared=False, in_files=False)
    predicted = forecast.Forecast(
        schedule, [], Ledger(), set(), set(), [], {0: learner}, bounds, [], {}, 0, here, [], 0
    )
    assert predicted.differences({"stem": 10, "train": 19}) == []
    assert predicted.differences({"stem": 9, "train": 21}) == [
        "stem 9 instead of exactly 10",
        "train 21 instead of at most 20",
    ]


@pytest.mark.parametrize("clients", [5, 40])
def test_a_plan_costs_little(clients):
    """A hundredth of a second a client at the most, beside what it costs to set a network up: no images, no training."""
    make("data.synthetic.clients=2", "model.num_classes=1000")
    began = time.process_time()
    make(f"data.synthetic.clients={clients}", "model.num_classes=1000")
    assert time.process_time() - began < 2 + 0.02 * clients


def test_a_thousand_clients_cost_seconds():
    """A client's round costs a plan at most 800 calls, in whatever scopes it is searched: a thousand clients and twelve
    rounds some seconds.

    Calls are counted, not seconds, for those depend on what else the machine does; what both plans do cancels out.
    """
    calls(2, ranks=4)  # what is loaded and kept the first time
    assert (calls(30, ranks=4) - calls(10, ranks=4)) / (20 * 12) < 800


def test_what_a_client_costs_a_plan_does_not_grow_with_the_others():
    """Though each has a rank of its own, as `plan` takes it: no rank goes through everybody."""
    calls(2, ranks=3)
    few, more, many = (calls(clients, ranks=clients + 1) for clients in (20, 40, 60))
    assert (many - more) - (more - few) < 5 * 20 * 40


def calls(clients, ranks):
    """Of a plan that searches everywhere."""
    scopes = ["data.synthetic.strangers=1", "evaluation.gallery=[client,task,all]"]
    settings = ["data.tasks=6", "rounds.per_task=2", "model.num_classes=1000", *scopes]
    profile = cProfile.Profile()
    profile.runcall(make, f"data.synthetic.clients={clients}", *settings, ranks=ranks)
    return sum(entry.callcount for entry in profile.getstats())


# -- bytes -------------------------------------------------------------------------------------------------------------


TRAVELS = 160 * 960 + 3 * 960 + 960 * 320 + 320 * 1280 + 1280 * 32
"""Weights of MobileNetV2's last inverted residual and last convolution, and of a classifier of 32 people. Of a map of 2x1
pixels, 3x3 kernels reach one column."""
UNREACHED = 3 * 192 + 6 * (3 * 384 + 384 + 2 * 576 + 576 + 3 * 960)
"""Weights of the depthwise kernels in the last eleven inverted residuals, of which the first goes from 4x2 to 2x1."""
BACKBONE = 3_504_872 - (1280 + 1) * 1000 - UNREACHED
"""Parameters of MobileNetV2 that images of 32x16 pixels reach, without its classifier."""
FLOATS = BACKBONE + 34_112 + 4 * 1280 + 1280 * 32
"""With its batch norms' statistics, the neck and a classifier of 32 people."""
START = 4 * FLOATS + 8 * (52 + 1)
"""Bytes, with the counters of 52 batch norms and the neck."""


def test_bytes_of_fedavg_by_hand():
    predicted = make("method.name=fedavg", "rounds.per_task=2")  # 4 rounds
    assert TRAVELS == 914_240
    assert predicted.ledger.by_kind() == {
        (DOWN, "model"): (3 * 4 * FLOATS,) * 2,
        (DOWN, "counters"): (3 * 8 * 53,) * 2,
        (DOWN, "weights"): (3 * 4 * 4 * TRAVELS,) * 2,  # rounds 2, 3, 4 and the closing distribution
        (UP, "weights"): (3 * 4 * 4 * TRAVELS,) * 2,
        (UP, "samples"): (3 * 4 * 8,) * 2,
    }
    per_round = 3 * 4 * TRAVELS
    assert [tuple(group) for group in predicted.rounds] == [
        ("first contact", 1, 3, 3 * START, per_round + 24),
        ("a task begins", 1, 3, per_round, per_round + 24),
        ("other rounds", 2, 6, 2 * per_round, 2 * (per_round + 24)),
        ("closing", 1, 3, per_round, 0),
    ]


def test_first_contact_depends_on_what_a_checkpoint_gave():
    """Nothing is downloaded: with a shared checkpoint it is the classifier alone, after a warm-up everything again."""
    first = {
        name: make("method.name=single", *overrides).ledger.total(DOWN)
        for name, overrides in {
            "none": ["model.weights=none"],
            "imagenet": ["model.weights=imagenet"],
            "warmed": ["model.weights=imagenet", "warmup.steps=1"],
        }.items()
    }
    classifier = 3 * 4 * 1280 * 32
    assert first == {"none": 3 * START, "imagenet": classifier, "warmed": 3 * START}


def test_blank_network_knows_what_a_checkpoint_provides(tmp_path):
    from torchvision.models import mobilenet_v2

    torch.save(mobilenet_v2().state_dict(), tmp_path / "weights.pt")
    settings = {"num_classes": 7, "image_size": (32, 16), "last_stride": 1, "weights": str(tmp_path / "weights.pt")}
    real = build("mobilenet_v2", **settings)
    experiment = tiny.experiment({"model.weights": str(tmp_path / "weights.pt"), "data.height": 32, "data.width": 16})
    blank = blank_network(experiment, num_classes=7)
    assert blank.provided == real.provided
    assert all(parameter.is_meta for parameter in blank.tail.parameters())


@pytest.mark.parametrize("drawn", [1, 3])
def test_rounds_in_groups_are_the_whole_ledger(drawn):
    predicted = make("prototypes.exchange=true", f"rounds.clients_per_round={drawn}", "rounds.per_task=2")
    groups = predicted.rounds
    assert sum(group.down for group in groups) == predicted.ledger.total(DOWN)
    assert sum(group.up for group in groups) == predicted.ledger.total(UP)
    assert sum(group.rounds for group in groups) == predicted.schedule.total + 1
    assert {group.name: group.rounds for group in groups}["first contact"] == 3 // drawn


# -- memory ------------------------------------------------------------------------------------------------------------


def test_what_an_image_takes_on_its_way():
    with torch.device("meta"):
        module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Sequential(nn.MaxPool2d(2), nn.Flatten()))
    conv, pool = 4 * 8 * 6, 4 * 4 * 3
    kept, peak = measure_passing(module, (3, 8, 6))
    assert kept == 4 * (conv + pool + pool)
    assert peak == 4 * (conv + max(3 * 8 * 6, pool))


def test_memory_by_hand():
    predicted = make("method.name=fedavg", "rounds.per_task=2", ranks=3)
    server, first, second = (found.parts for found in predicted.footprints)
    weights = 4 * TRAVELS
    learns = 4 * (TRAVELS + 2 * (960 + 960 + 320 + 1280))  # with scale and shift of its batch norms
    tail = learns + 4 * 2 * (960 + 960 + 320 + 1280) + 4 * 4 * 1280 + 8 * 5
    images = 32 * 16 * 3 * 2 * 4 * (3 + 1 + 1)  # tasks, people, images
    assert [placement["clients"] for placement in predicted.placements] == [[], [0, 1], [2]]
    stem = 4 * (BACKBONE - (learns // 4 - 1280 * 32))  # its inference form: weights, batch norms' scale and shift
    assert [found.parts["model"] for found in predicted.footprints] == [START, START + stem, START + stem]
    assert server["server"] == weights
    assert server["exchange"] == weights + 2 * START + 2 * weights + 3 * (weights + 8)
    assert "tails" not in server
    assert first["images"] == 2 * (images + OBJECTS)
    assert second["images"] == images + OBJECTS
    assert first["tails"] == 2 * tail + learns + 2 * learns  # gradients of one at a time, two moments
    assert second["tails"] == tail + learns + 2 * learns
    assert first["exchange"] == weights + START + weights + 2 * (weights + 8) + 4 * weights
    item = 4 * 160 * 2 * 1
    assert second["memory"] == item * 12  # 2 x 4 people share a memory of 12, which is full
    assert [server["checkpoint"], first["checkpoint"]] == [START, 2 * (tail + item * 12)]
    assert second["cache"] == item * (2 * 4 * (3 + 1 + 1) + 12 + 12 + 12)


def test_more_ranks_than_clients_have_little_to_hold():
    parts = make("method.name=single", ranks=6).footprints[5].parts
    set_up = START + PAGES  # the start model is built, and broadcast
    assert parts == {"set-up": set_up, "model": START, "exchange": START}


def test_matrix_of_all_weights_on_the_server():
    assert make().footprints[0].parts["server"] >= 3 * 4 * TRAVELS


def test_a_gpu_takes_what_learns():
    parts = {"model": 1, "images": 10, "tails": 100, "exchange": 1000, "warm-up": 10_000}
    assert (Footprint(parts, gpu=False).host(), Footprint(parts, gpu=False).device()) == (10_001, 0)
    assert (Footprint(parts, gpu=True).host(), Footprint(parts, gpu=True).device()) == (1010, 10_001)


def test_a_warm_up_is_over_when_the_rounds_begin():
    rounds, before = {"set-up": 1, "model": 10, "tails": 100}, {"warm-up": 1000}
    assert Footprint(rounds | before, gpu=False).host() == 1011
    assert Footprint(rounds | before | {"exchange": 10_000}, gpu=False).host() == 10_111


def test_warm_up_trains_the_whole_backbone():
    parts = make("warmup.steps=1", "warmup.batch=2").footprints[0].parts
    assert 3 * 4 * BACKBONE < parts["warm-up"] < 4 * 4 * BACKBONE
    assert make().footprints[0].parts["warm-up"] == 0


# -- placement and the command -----------------------------------------------------------------------------------------


def test_placements():
    placements = plan.placement(5, 3, Placement(device="cpu", threads=2))
    assert [(placement.rank, placement.clients, placement.device, placement.threads) for placement in placements] == [
        (0, (), "cpu", 2),
        (1, (0, 1, 2), "cpu", 2),
        (2, (3, 4), "cpu", 2),
    ]
    with pytest.raises(InputError, match="--ranks 0; expected at least 1"):
        plan.placement(5, 0, Placement())


def printed(capsys, *arguments):
    plan.main([str(TINY), *CLASSES, *arguments])
    return capsys.readouterr().out


def test_command_prints_totals(capsys):
    text = printed(capsys, "method.name=fedavg", "--ranks", "2")
    assert "Placement of 2 ranks" in text
    before_seconds = text[: text.index("CPU seconds by rank")]
    rows = {row[0]: row for row in (line.split() for line in before_seconds.splitlines()) if row}
    down, up = 3 * (START + 2 * 4 * TRAVELS), 3 * 2 * (4 * TRAVELS + 8)
    assert rows["total"][1:] == ["2", *(f"{size / 1e6:.3f}" for size in (down / 3, up / 3, down, up))]
    # stem: train images twice (a view, and as they are), queries and galleries once, by client and task
    stem, search = 3 * 2 * 4 * (2 * 3 + 2), 3 * (2 * 12 + (1 + 1 + 2 + 2) * 8)
    assert rows["all"][-3] == str(stem)
    assert rows["all"][-1] == str(search)
    assert {"metrics.csv", "metrics.jsonl", "results.h5"} <= set(rows)


def test_command_says_it_to_tools(capsys):
    found = json.loads(printed(capsys, "method.name=fedavg", "--json"))
    assert found["bytes"]["S2C"] == 3 * (START + 2 * 4 * TRAVELS) == sum(client["S2C"] for client in found["clients"])
    assert [placement["clients"] for placement in found["placement"]] == [[], [0], [1], [2]]
    assert len(found["memory"]) == 4
    assert found["forward_counts"]["stem"] == {"images": sum(c["stem"] for c in found["clients"]), "bound": "exactly"}


def test_kinds_with_a_codec_are_marked(monkeypatch, capsys):
    single = methods.load("single")
    parts = (Part("sketch", 10, ragged=True, codec="sparse"), Part("weights", 3))
    sent = {"sketch": torch.zeros(1, 1), "weights": torch.zeros(1)}
    monkeypatch.setattr(single.Client, "traffic", staticmethod(lambda setup, options: Traffic(up=parts)))
    monkeypatch.setattr(single.Client, "update", lambda self: sent)
    predicted = make.__wrapped__("method.name=single")
    assert predicted.packed == {"sketch"}
    assert {kind["kind"] for kind in predicted.as_json()["bytes"]["kinds"] if kind["before_codec"]} == {"sketch"}
    assert "by round (at most)" in (text := printed(capsys, "method.name=single"))
    assert "C2S sketch 0.000 at most, before its codec" in [" ".join(line.split()) for line in text.splitlines()]


def test_kinds_of_which_less_may_be_sent_are_marked(capsys):
    settings = ["compression.up=ternary_entropy", "compression.down=int8"]
    text = printed(capsys, "method.name=fedavg", *settings)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert [line.startswith("C2S") for line in lines if line.endswith("at most")] == [True]
    kinds = json.loads(printed(capsys, "method.name=fedavg", *settings, "--json"))["bytes"]["kinds"]
    assert {(kind["direction"], kind["kind"]) for kind in kinds if kind["at_most"]} == {("C2S", "weights")}
    down = next(kind["bytes"] for kind in kinds if (kind["direction"], kind["kind"]) == ("S2C", "weights"))
    assert TRAVELS < down / 6 < 1.1 * TRAVELS  # as it travels, a byte and its share of a scale for each scalar


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (["nowhere.yaml"], "config file nowhere.yaml does not exist; "),
        ([TINY, "train.lrr=1"], "unknown config key train.lrr; did you mean train.lr?"),
        ([TINY, "method.name=fedstill"], "unknown method 'fedstill'; did you mean fedstil?"),
        ([TINY, "--ranks", "0"], "--ranks 0; expected at least 1"),
        ([TINY, "--ranks", "many"], "argument --ranks: invalid int value: 'many'; expected "),
        ([TINY, "rounds.clients_per_round=4"], "rounds.clients_per_round = 4, but there are 3 clients"),
        (
            [TINY, "rounds.evaluate_every=3"],
            "rounds.evaluate_every = 3, but there are 2 rounds; set it to that or less",
        ),
        ([TINY, "rounds.per_task=1000000"], "2,000,000 rounds of 3 clients; expected at most 1,000,000 in all"),
        ([TINY, "model.backbone=resnet19"], "unknown backbone 'resnet19'; did you mean resnet1"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, needed):
    with pytest.raises(SystemExit) as left:
        plan.main([str(argument) for argument in arguments])
    assert left.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(f"fedstil_mpi: {needed}")


@pytest.mark.slow
def test_nothing_is_started():
    program = """
import sys
from fedstil_mpi import plan
assert "torch" not in sys.modules  # which reads CUDA_VISIBLE_DEVICES and the number of threads when it is imported
plan.main(sys.argv[1:])
assert "torch" in sys.modules and "mpi4py" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program, TINY], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
