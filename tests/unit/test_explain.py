"""Explanations: evidence for likeness, models of a run, and the command line."""

import csv
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fedstil_mpi import explain, methods
from fedstil_mpi.config import loading
from fedstil_mpi.data.sources import open_original, open_stream
from fedstil_mpi.data.streams.base import Images, Task
from fedstil_mpi.evaluation.gradcam import default_layer, heat, layers, likeness
from fedstil_mpi.evaluation.matches import Match, best
from fedstil_mpi.federation.plan import make_plan
from fedstil_mpi.models.adaptive import decompose
from fedstil_mpi.models.files import STEM, load_tail, model_file, plain_state, save_tail
from fedstil_mpi.models.network import Network, Stem, Tail, adaptive_parameters, build
from fedstil_mpi.results.reading import networks
from fedstil_mpi.results.reading.networks import load_network
from fedstil_mpi.results.report.explanation import Shown, row
from fedstil_mpi.util.errors import InputError
from support import SMALL, TINY, tiny

PLACE = (5, 2)


class Spotlight(nn.Module):
    """Lets through one place of a map, and nothing of the others."""

    def forward(self, value: Tensor) -> Tensor:
        mask = torch.zeros(value.shape[2:])
        mask[PLACE] = 1
        return value * mask


def spotlit() -> Network:
    """A network that looks at one pixel of an 8 x 4 image."""
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
    stem = Stem({"first": nn.Identity(), "seen": nn.Identity()})
    return Network(stem, Tail({"spot": Spotlight(), "pool": pool}, 3, 4, "plain"), frozenset())


def pair(height: int = 16, width: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


# -- evidence ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["seen", "spot"])
def test_only_the_place_that_is_looked_at_is_evidence(layer):
    images = pair(8, 4).abs()
    cosine, evidence = likeness(spotlit(), images, layer)
    one, other = images[:, :, *PLACE]
    assert cosine == pytest.approx(float(torch.cosine_similarity(one, other, dim=0)))
    for of_image in evidence:
        assert of_image[PLACE] == pytest.approx(cosine)
        assert of_image.count_nonzero() == 1
    maps = heat(evidence, (80, 40))
    for of_image in maps:
        y, x = np.unravel_index(int(of_image.argmax()), of_image.shape)
        assert (y // 10, x // 10) == PLACE


def small(seed: int = 0) -> Network:
    """Whose maps have 8 x 4, 8 x 4, 8 x 4 and 6 x 2 places for an image of 16 x 8."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
        front = Stem({"first": nn.Conv2d(3, 4, 3, 2, 1), "norm": nn.BatchNorm2d(4), "relu": nn.ReLU()})
        rest = {"drop": nn.Dropout(), "last": nn.Conv2d(4, 6, 3, bias=False), "pool": pool}
        return Network(front, Tail(rest, 6, 12, "bnneck"), frozenset())


def test_the_evidence_of_the_last_map_adds_up_to_the_cosine():
    cosine, evidence = likeness(small(), pair(), "last")
    assert evidence.shape == (2, 6, 2)
    assert evidence.sum((1, 2)).tolist() == pytest.approx([cosine, cosine], abs=1e-6)


def test_the_cosine_is_that_of_the_features_a_task_is_searched_with():
    network, images = small(), pair()
    one, other = network.tail.eval().features(network.stem(images)).detach()
    for layer in layers(network):  # dropout and batch norm are at rest
        assert likeness(network, images, layer).cosine == pytest.approx(
            float(torch.cosine_similarity(one, other, dim=0)), abs=1e-6
        )


def test_an_image_is_like_itself_for_the_same_reason_on_both_sides():
    images = pair()[:1].repeat(2, 1, 1, 1)
    cosine, (one, other) = likeness(small(), images, "relu")
    assert cosine == pytest.approx(1)
    assert torch.allclose(one, other, atol=1e-7)


def test_evidence_changes_sides_with_the_images():
    there, back = (likeness(small(), images, "norm") for images in (pair(), pair().flip(0)))
    assert back.cosine == pytest.approx(there.cosine)
    assert torch.allclose(back.evidence, there.evidence.flip(0), atol=1e-6)


@pytest.mark.slow
def test_swin_has_its_channels_last():
    network = build("swin_t", num_classes=4, image_size=(32, 16))
    cosine, evidence = likeness(network, pair(32, 16), "norm")
    assert evidence.shape == (2, 7, 7)
    assert evidence.sum((1, 2)).tolist() == pytest.approx([cosine, cosine], abs=1e-5)


def test_the_default_layer_is_the_last_that_is_not_too_coarse():
    assert default_layer(small(), (16, 8)) == "drop"
    assert default_layer(small(), (20, 16)) == "last"  # 8 x 6
    assert default_layer(small(), (8, 8)) == "norm"  # no map has 32 places


def test_unknown_layer():
    with pytest.raises(InputError, match=r"unknown layer 'norn'; did you mean norm\? choose one of norm, relu"):
        likeness(small(), pair(), "norn")


def test_features_that_are_not_finite():
    network = small()
    with torch.no_grad():
        network.tail.trunk.get_parameter("last.weight")[0] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        likeness(network, pair(), "relu")


def test_heat_is_from_0_to_1_at_the_size_of_the_image():
    evidence = torch.randn(5, 6, 2, generator=torch.Generator().manual_seed(0))
    maps = heat(evidence, (48, 20))
    assert maps.shape == (5, 48, 20)
    assert float(maps.min()) == 0
    assert maps.amax((1, 2)).tolist() == [1] * 5
    assert torch.allclose(maps, heat(3 * evidence, (48, 20)))


def test_evidence_against_is_no_heat():
    assert heat(torch.tensor([[[-3.0, -1.0]]]), (4, 8)).count_nonzero() == 0
    assert heat(torch.tensor([[[-3.0, 2.0]]]), (1, 2)).tolist() == [[[0, 1]]]


# -- models of a run ---------------------------------------------------------------------------------------------------


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_tail_comes_back_to_the_bit(tmp_path):
    tail, other = small(1).tail, small(2).tail
    tail.neck.num_batches_tracked += 7
    save_tail(file := model_file(tmp_path, 3), tail)
    load_tail(file, other)
    assert same(other.state_dict(), tail.state_dict())
    assert [path.name for path in file.parent.iterdir()] == ["client-3.safetensors"]


def test_decomposed_weights_are_saved_as_what_they_are_together(tmp_path):
    tail, other = tiny.network(1).tail, tiny.network(2).tail
    expected = {name: tensor.clone() for name, tensor in tail.state_dict().items()}
    for name in adaptive_parameters(tail):
        decompose(tail.get_submodule(name.removesuffix(".weight")), 0.8)
    assert any("parametrizations" in name for name in tail.state_dict())
    save_tail(tmp_path / "tail.safetensors", tail)
    load_tail(tmp_path / "tail.safetensors", other)
    assert other.state_dict().keys() == expected.keys()
    assert all(torch.allclose(other.state_dict()[name], expected[name], atol=1e-6) for name in expected)


class HalvedInTraining(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2 if self.training else weight


def test_weights_are_those_of_evaluation_and_the_mode_stays():
    model = nn.Sequential(layer := nn.Linear(2, 2))
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    nn.utils.parametrize.register_parametrization(layer, "weight", HalvedInTraining())
    assert same(plain_state(model), expected)
    assert model.training
    assert layer.parametrizations.weight[0].training


def refusal(file: Path, tail: nn.Module) -> str:
    """The line that a file is refused with; the model stays as it was."""
    before = {name: tensor.clone() for name, tensor in tail.state_dict().items()}
    with pytest.raises(InputError) as refused:
        load_tail(file, tail)
    assert same(tail.state_dict(), before)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda file: file.unlink(), "does not exist"),
        (lambda file: file.write_bytes(file.read_bytes()[:-5]), "cannot be read"),
        (lambda file: file.write_bytes(file.read_bytes() + b"more"), "cannot be read"),
        (lambda file: file.write_bytes(b""), "cannot be read"),
        (lambda file: file.write_bytes(b"\xff" * 100), "cannot be read"),
        (lambda file: torch.save(small().tail.state_dict(), file), "cannot be read"),
        (lambda file: file.write_bytes(pickle.dumps({})), "cannot be read"),
    ],
)
def test_damaged_files_are_refused(tmp_path, damage, reason):
    save_tail(file := tmp_path / "tail.safetensors", small().tail)
    damage(file)
    assert reason in refusal(file, small(3).tail)


def test_other_models_are_refused(tmp_path):
    file = tmp_path / "tail.safetensors"
    with torch.no_grad():
        save_tail(file, Tail(dict(small().tail.trunk.named_children()), 6, 13, "bnneck"))
        assert "classifier.weight is [13, 6] float32, expected [12, 6] float32" in refusal(file, small(3).tail)
        save_tail(file, Tail(dict(small().tail.trunk.named_children()), 6, 12, "plain"))
        assert "has the unknown classifier.bias" in refusal(file, small(3).tail)
        save_tail(file, nn.Sequential())
        assert "lacks classifier.weight" in refusal(file, small(3).tail)
        save_tail(file, small().tail.double())
        assert "float64, expected" in refusal(file, small(3).tail)


# -- which images ------------------------------------------------------------------------------------------------------


def labelled(pids: list[int], cameras: list[int]) -> Images:
    return Images(np.zeros((len(pids), 8, 4, 3), np.uint8), np.array(pids), np.array(cameras))


def task() -> Task:
    """A query of person 7 at camera 0, and a gallery in which the best is the query's person at camera 0."""
    nothing = labelled([], [])
    return Task(nothing, labelled([7], [0]), labelled([7, 3, 7, 4], [0, 1, 1, 1]))


SIMILARITY = torch.tensor([0.9, 0.8, 0.1, 0.2])


def test_best_matches_and_their_ranks():
    assert list(best(task(), 0, SIMILARITY, market=True)) == [("true", 2, 3), ("false", 1, 1)]
    assert list(best(task(), 0, SIMILARITY, market=False)) == [("true", 0, 1), ("false", 1, 2)]
    unknown = Task(labelled([], []), labelled([7], [-1]), labelled([7, 3, 7, 4], [-1] * 4))
    assert list(best(unknown, 0, SIMILARITY, market=True)) == [("true", 0, 1), ("false", 1, 2)]


def test_a_match_that_there_is_not():
    strangers = Task(labelled([], []), labelled([9], [0]), task().gallery)
    assert list(best(strangers, 0, SIMILARITY, market=True)) == [("false", 0, 1)]
    alone = Task(labelled([], []), labelled([9], [0]), labelled([9], [0]))
    with pytest.raises(InputError, match="query 0 has no image to be compared with but of its own"):
        list(best(alone, 0, SIMILARITY[:1], market=True))


def test_a_line_of_numbers():
    maps = np.zeros((2, 8, 4), np.float32)
    maps[0, 5, 1] = maps[1, 0, 3] = 1
    assert row(task(), 0, Shown(Match("false", 3, 2), 0.25, maps)) == {
        **{"query": 0, "person": 7, "camera": 0, "match": "false"},
        **{"gallery": 3, "gallery_person": 4, "gallery_camera": 1, "cosine": 0.25, "rank": 2},
        **{"query_hottest_y": 5, "query_hottest_x": 1, "gallery_hottest_y": 0, "gallery_hottest_x": 3},
    }


# -- the command line --------------------------------------------------------------------------------------------------


def command(*arguments: object) -> None:
    explain.main([*map(str, arguments)])


def chosen(output: Path, *images: int) -> list[object]:
    return [SMALL, "--client", 1, "--task", 1, "--images", *images, "--output", output]


def start_network(*overrides: str) -> Network:
    experiment = loading.resolve(loading.read(TINY, [SMALL, *overrides]))
    stream = open_stream(experiment.data, experiment.seed)
    return load_network(make_plan(experiment, methods.load("fedstil"), stream), stream, None)


@pytest.fixture(scope="module")
def explained(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("explained") / "heat"
    command(TINY, *chosen(output, 0, 3))
    return output


def lines(output: Path) -> list[dict[str, str]]:
    with (output / "explain.csv").open() as file:
        return list(csv.DictReader(file))


def test_pictures_and_numbers(explained):
    rows = lines(explained)
    assert [(line["query"], line["match"]) for line in rows] == [
        ("0", "true"),
        ("0", "false"),
        ("3", "true"),
        ("3", "false"),
    ]
    for line in rows:
        assert (line["person"] == line["gallery_person"]) == (line["match"] == "true")
        assert -1 <= float(line["cosine"]) <= 1
    for true, false in (rows[:2], rows[2:]):
        assert 1 in (int(true["rank"]), int(false["rank"]))
        assert (int(true["rank"]) < int(false["rank"])) == (float(true["cosine"]) > float(false["cosine"]))
    assert {path.name for path in explained.iterdir()} == {"query-0.png", "query-3.png", "explain.csv"}
    assert len(Image.open(explained / "query-0.png").convert("RGB").getcolors(1 << 24)) > 100


def test_people_have_the_ids_of_the_source(tmp_path):
    """Of a single client of several, who are numbered otherwise for the classifier."""
    only = [SMALL, "data.clients=[2]", "warmup.steps=0"]
    command(TINY, *only, "--client", 0, "--task", 1, "--images", 0, "--output", tmp_path)
    experiment = loading.resolve(loading.read(TINY, only))
    shown, inside = (
        opened(experiment.data, experiment.seed).task(0, 1).query.pids[0] for opened in (open_original, open_stream)
    )
    assert [int(line["person"]) for line in lines(tmp_path)] == [shown, shown]
    assert shown != inside


def test_deterministic(explained, tmp_path):
    command(TINY, *chosen(tmp_path, 0, 3))
    for path in explained.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_a_run_folder_gives_config_tail_and_stem(explained, tmp_path, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(TINY, run / "config.yaml")
    network = start_network("seed=5")  # another start model than the config's
    save_tail(model_file(run, 1), network.tail)
    command(run, *chosen(tmp_path / "tail", 0))
    save_tail(run / "models" / STEM, network.stem)
    monkeypatch.setattr(networks, "warm_up", None)  # not needed with a stem
    command(run, "warmup.steps=3", *chosen(tmp_path / "both", 0))
    command(TINY, *chosen(tmp_path / "file", 0), "--model", model_file(run, 1))
    found = {name: lines(tmp_path / name) for name in ("tail", "both", "file")}
    assert found["file"] == found["both"]
    assert found["both"] != found["tail"]  # its stem is the config's, drawn from another seed
    assert found["tail"] != lines(explained)[:2]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--client", "3"], "--client 3, but there are 3 clients; expected 0 to 2"),
        (["--client", "-1"], "--client -1, but there are 3 clients"),
        (["--task", "2"], "--task 2, but there are 2 tasks"),
        (["--images", "0", "4"], "--images 4, but there are 4 queries; expected 0 to 3"),
        (["--images"], "--images: expected at least one argument"),
        (["--images", "one"], "invalid integer value: 'one'"),
        (["--model", "absent.safetensors"], "model file absent.safetensors does not exist"),
        (["--layer", "layer3"], "unknown layer 'layer3'"),
        (["--output", str(TINY)], "cannot be made (File exists)"),
        (["model.backbone=resnet"], "unknown backbone 'resnet'"),
        (["trian.lr=1"], "unknown config key trian"),
    ],
)
def test_wrong_input_gets_one_line_and_exit_code_2(tmp_path, capsys, arguments, reason):
    with pytest.raises(SystemExit) as left:
        command(TINY, *chosen(tmp_path, 0), *arguments)
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fedstil_mpi: ")
    assert reason in line


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent.yaml", "does not exist"),
        ("", "keeps no client-1.safetensors: runs keep models with save_models=true; run it so under another name"),
    ],
)
def test_a_folder_without_what_is_needed(tmp_path, capsys, name, reason):
    shutil.copy(TINY, tmp_path / "config.yaml")
    with pytest.raises(SystemExit):
        command(tmp_path / name, *chosen(tmp_path / "heat", 0))
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line
