import copy
import math
import os
import pickle
import sys
import urllib.error
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from fedstil_mpi.models import torchvision_cpu
from fedstil_mpi.models.network import (
    Network,
    adaptive_parameters,
    build,
    is_finite,
    network_state,
    representation_shape,
    trainable_parameters,
)
from fedstil_mpi.util.errors import InputError

SMALL: dict[str, Any] = {"num_classes": 12, "image_size": (64, 32)}


def scalars(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


def on_meta(name: str, **options) -> Network:
    """With the reference code's 8000 classes and image size, whose counts are known; shapes only, no memory, no time."""
    with torch.device("meta"):
        return build(name, num_classes=8000, image_size=(128, 64), **options)


def pretrained_model(name: str) -> nn.Module:
    """torchvision's whole model, in evaluation mode, with weights and statistics that no seed of ours would draw."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        model = torchvision_cpu.import_models().get_model(name)
        for key, value in model.state_dict().items():
            if key.endswith("running_mean"):
                value.normal_(std=0.1)
            if key.endswith("running_var"):
                value.uniform_(0.5, 2)
    return model.eval()


def images(size: int = 2, height: int = 64, width: int = 32) -> Tensor:
    return torch.randn(size, 3, height, width, generator=torch.Generator().manual_seed(7))


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return pretrained_model("resnet18")


def test_counts_resnet18():
    network = on_meta("resnet18")
    state = network_state(network)
    adaptive = adaptive_parameters(network.tail)
    assert [tuple(weight.shape) for weight in adaptive.values()] == [
        (512, 256, 3, 3),
        (512, 512, 3, 3),
        (512, 256, 1, 1),
        (512, 512, 3, 3),
        (512, 512, 3, 3),
        (8000, 512),
    ]
    assert scalars(adaptive) == 12_484_608
    assert scalars(trainable_parameters(network.tail)) == 12_489_728
    assert scalars(state) == 15_284_181
    assert scalars({key: value for key, value in state.items() if value.dtype == torch.int64}) == 21
    assert representation_shape(network, (128, 64)) == (256, 8, 4)
    assert network.provided == frozenset()


def test_counts_resnet50():
    network = on_meta("resnet50")
    assert scalars(adaptive_parameters(network.tail)) == 31_326_208
    assert scalars(trainable_parameters(network.tail)) == 31_348_736
    assert scalars(network_state(network)) == 39_953_398
    assert representation_shape(network, (128, 64)) == (1024, 8, 4)


def test_counts_swin():
    network = on_meta("swin_t")
    assert scalars(adaptive_parameters(network.tail)) == 20_299_776
    assert scalars(trainable_parameters(network.tail)) == 20_327_856
    # The reference code's count includes attention masks, 49 x 49 for each window of the shifted blocks of stages 1 to 3
    # (64, 16 and 3 x 4 windows). torchvision computes them when they are needed.
    assert scalars(network_state(network)) == 33_916_131 - 49 * 49 * (64 + 16 + 3 * 4)
    assert representation_shape(network, (128, 64)) == (7, 7, 768)


def test_counts_vit():
    network = on_meta("vit_b_16")
    shapes = {
        name.rpartition("encoder_layer_11.")[2]: tuple(w.shape) for name, w in adaptive_parameters(network.tail).items()
    }
    assert shapes == {
        "self_attention.in_proj_weight": (3 * 768, 768),
        "self_attention.out_proj.weight": (768, 768),
        "mlp.0.weight": (3072, 768),
        "mlp.3.weight": (768, 3072),
        "classifier.weight": (8000, 768),
    }
    # 86,567,656 with torchvision's classifier of 1000 classes; ours has no bias, and the neck five tensors.
    neck = 4 * 768 + 1
    assert scalars(network_state(network)) == 86_567_656 - 769 * 1000 + 768 * 8000 + neck
    assert representation_shape(network, (128, 64)) == (197, 768)


@pytest.mark.parametrize(("last_stride", "size"), [(2, (128, 64)), (1, (64, 32))])
def test_mobilenet_representation(last_stride, size):
    network = on_meta("mobilenet_v2", last_stride=last_stride)
    assert representation_shape(network, size) == (160, 4, 2)
    early_stages = nn.Sequential(*list(network.stem.children())[:14])
    before_last_stride = early_stages(torch.empty(1, 3, *size, device="meta"))
    assert before_last_stride.shape == (1, 96, size[0] // 16, size[1] // 16)


@pytest.mark.parametrize("name", ["resnet34", "resnet152"])
def test_last_stride_sets_the_resolution_of_the_last_map(name):
    for last_stride, expected in ((1, (8, 4)), (2, (4, 2))):
        network = on_meta(name, last_stride=last_stride)
        output = network.tail.trunk.get_submodule("layer4")(network.stem(torch.empty(1, 3, 128, 64, device="meta")))
        assert output.shape[2:] == expected


@pytest.mark.parametrize("name", ["resnet101", "swin_s", "swin_b"])
def test_other_backbones_run_from_image_to_scores(name):
    network = on_meta(name)
    scores, features = network.tail.eval()(network.stem(torch.empty(2, 3, 128, 64, device="meta")))
    assert scores.shape == (2, 8000)
    assert features.shape == (2, network.tail.classifier.in_features)


@pytest.mark.parametrize(
    ("name", "classifier"),
    [("resnet18", "fc"), ("mobilenet_v2", "classifier"), ("swin_t", "head"), ("vit_b_32", "heads")],
)
def test_stem_and_tail_equal_the_whole_model(name, classifier, tmp_path):
    whole = pretrained_model(name)
    torch.save(whole.state_dict(), tmp_path / "whole.pt")
    network = build(name, **SMALL, last_stride=2, weights=str(tmp_path / "whole.pt"))
    setattr(whole, classifier, nn.Identity())
    resized = name.startswith(("swin", "vit"))
    batch = images(2, 300, 260) if resized else images()
    seen = nn.functional.interpolate(batch, (224, 224), mode="bilinear", antialias=True) if resized else batch
    with torch.no_grad():
        torch.testing.assert_close(network.tail.eval().features(network.stem(batch)), whole(seen))


@pytest.mark.parametrize("split", ["conv1", "layer2", "pool"])
def test_any_stage_can_be_the_split(split, resnet, tmp_path):
    torch.save(resnet.state_dict(), tmp_path / "whole.pt")
    options = {**SMALL, "weights": str(tmp_path / "whole.pt")}
    cut, default = build("resnet18", split=split, **options), build("resnet18", **options)
    assert next(iter(cut.tail.trunk._modules)) == split
    assert scalars(network_state(cut)) == scalars(network_state(default))
    with torch.no_grad():
        features = [network.tail.eval().features(network.stem(images())) for network in (cut, default)]
    torch.testing.assert_close(*features)


def test_stem_never_changes():
    network = build("resnet18", **SMALL)
    stem_before, tail_before = (copy.deepcopy(part.state_dict()) for part in (network.stem, network.tail))
    nn.ModuleList([network.stem, network.tail]).train()
    assert not any(module.training for module in network.stem.modules())
    optimizer = torch.optim.SGD([*network.stem.parameters(), *network.tail.parameters()], lr=0.1)
    representations = network.stem(images(4))
    assert not representations.requires_grad
    scores, features = network.tail(representations)
    (scores.square().sum() + features.square().sum()).backward()
    optimizer.step()
    assert same(stem_before, network.stem.state_dict())
    changed = {key for key, value in network.tail.state_dict().items() if not torch.equal(value, tail_before[key])}
    assert changed == set(tail_before) - {"neck.weight", "neck.bias"}


@pytest.mark.parametrize(("name", "neck"), [("resnet18", "bnneck"), ("resnet18", "plain"), ("swin_t", "bnneck")])
def test_exactly_the_trainable_parameters_learn(name, neck):
    network = build(name, **SMALL, neck=neck)
    trainable = trainable_parameters(network.tail)
    adaptive = adaptive_parameters(network.tail)
    assert all(adaptive[key] is trainable[key] for key in adaptive)
    assert all(weight.dim() in (2, 4) for weight in adaptive.values())
    representations = torch.randn(4, *representation_shape(network, (64, 32)))
    scores, _ = network.tail.train()(representations)
    torch.nn.functional.cross_entropy(scores, torch.arange(4)).backward()
    assert {key for key, p in network.tail.named_parameters() if p.grad is not None} == set(trainable)


def test_stochastic_depth_only_in_training():
    tail = build("swin_t", **SMALL).tail
    representations = torch.randn(16, 7, 7, 768)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tail.eval()
        assert torch.equal(tail.features(representations), tail.features(representations))
        tail.train()
        assert not torch.equal(tail.features(representations), tail.features(representations))


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_one_value_that_is_not_finite_is_found(bad):
    one_bad = torch.ones(1000)
    one_bad[700] = bad
    opposite = torch.tensor([math.inf, -math.inf])
    assert not is_finite([torch.ones(3), one_bad])
    assert not is_finite([opposite, torch.ones(3)])


def test_values_are_finite_even_where_their_sum_is_not():
    largest = torch.full((4,), torch.finfo(torch.float32).max)
    assert not largest.sum().isfinite()
    assert is_finite([torch.tensor(3), largest, -largest])


def test_neck_stands_between_feature_and_classifier():
    tail = build("resnet18", **SMALL).tail.train()
    with torch.no_grad():
        scores, features = tail(5 * torch.rand(8, 256, 4, 2))
    normal = (features - features.mean(0)) / (features.var(0, correction=0) + tail.neck.eps).sqrt()
    torch.testing.assert_close(scores, normal @ tail.classifier.weight.T)
    assert tail.classifier.bias is None
    assert tail.classifier.weight.std().item() == pytest.approx(0.001, rel=0.05)


def test_without_neck_the_classifier_has_a_bias_and_sees_the_feature():
    tail = build("resnet18", **SMALL, neck="plain").tail
    with torch.no_grad():
        scores, features = tail(torch.rand(8, 256, 4, 2))
    torch.testing.assert_close(scores, features @ tail.classifier.weight.T + tail.classifier.bias)
    assert "classifier.bias" in trainable_parameters(tail)
    assert "classifier.bias" not in adaptive_parameters(tail)


def test_equal_seeds_are_bit_equal_and_leave_the_global_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = network_state(build("mobilenet_v2", **SMALL, seed=5))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert same(first, network_state(build("mobilenet_v2", **SMALL, seed=5)))
    other = network_state(build("mobilenet_v2", **SMALL, seed=6))
    weights = [key for key, value in first.items() if value.dim() in (2, 4)]
    assert len(weights) == 53
    assert not any(torch.equal(first[key], other[key]) for key in weights)


@pytest.mark.parametrize("neck", ["bnneck", "plain"])
def test_provided_tensors_are_those_that_no_seed_changes(neck, resnet, tmp_path):
    torch.save(resnet.state_dict(), tmp_path / "whole.pt")
    options = {**SMALL, "neck": neck, "weights": str(tmp_path / "whole.pt")}
    one, other = build("resnet18", **options, seed=1), build("resnet18", **options, seed=2)
    states = network_state(one), network_state(other)
    assert one.provided == {key for key in states[0] if torch.equal(states[0][key], states[1][key])}
    classifier = {"tail.classifier.weight"} | ({"tail.classifier.bias"} if neck == "plain" else set())
    assert set(states[0]) - one.provided == classifier


@pytest.mark.parametrize("suffix", ["pt", "pth", "safetensors"])
def test_half_precision_file_without_counters_and_classifier(suffix, resnet, tmp_path):
    kept = {key: value for key, value in resnet.state_dict().items() if not key.startswith("fc.")}
    kept = {key: value.half() for key, value in kept.items() if not key.endswith("num_batches_tracked")}
    path = tmp_path / f"weights.{suffix}"
    (safetensors.torch.save_file if suffix == "safetensors" else torch.save)(kept, path)
    state = network_state(build("resnet18", **SMALL, weights=str(path)))
    loaded = {key.removeprefix("stem.").removeprefix("tail.trunk."): value for key, value in state.items()}
    for key, value in kept.items():
        assert loaded[key].dtype == torch.float32
        assert torch.equal(loaded[key], value.float())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: {key: state[key] for key in state if key != "layer3.0.bn1.running_var"},
            r"lack layer3\.0\.bn1\.running_var",
        ),
        (lambda state: state | {"layer9.weight": torch.zeros(1)}, r"unknown layer9\.weight"),
        (
            lambda state: state | {"conv1.weight": torch.zeros(64, 3, 1, 1)},
            r"\[64, 3, 1, 1\], expected \[64, 3, 7, 7\]",
        ),
        (lambda state: {"weights": state, "epoch": 3}, "plain state dict"),
        (
            lambda state: state | {"bn1.bias": torch.full((64,), torch.nan)},
            "hold bn1.bias, which has values that are not",
        ),
        (lambda state: state | {"bn1.bias": torch.zeros(64, dtype=torch.int64)}, "bn1.bias, which is torch.int64"),
        (
            lambda state: state | {"bn1.bias": torch.zeros(64, dtype=torch.complex64)},
            "bn1.bias, which is torch.complex",
        ),
        (lambda state: state | {"bn1.bias": torch.zeros(64).to_sparse()}, "bn1.bias, which is no dense tensor"),
        (lambda state: state | {"bn1.bias": torch.zeros(64, device="meta")}, "bn1.bias, which is no dense tensor"),
        (lambda state: list(state.values()), "plain state dict"),
    ],
)
def test_file_that_does_not_fit(change, message, resnet, tmp_path):
    torch.save(change(dict(resnet.state_dict())), tmp_path / "bad.pt")
    with pytest.raises(InputError, match=message):
        build("resnet18", **SMALL, weights=str(tmp_path / "bad.pt"))


@pytest.mark.parametrize(
    "around",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {}},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
    ],
)
def test_what_training_scripts_put_around_the_weights_is_undone(around, resnet, tmp_path):
    torch.save(around(dict(resnet.state_dict())), tmp_path / "checkpoint.pth")
    network = build("resnet18", **SMALL, weights=str(tmp_path / "checkpoint.pth"))
    assert torch.equal(network.stem.get_parameter("conv1.weight"), resnet.get_parameter("conv1.weight"))


def test_a_weights_file_is_a_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "folder.pt").mkdir()
    for name, problem in (("pipe.pt", "is a pipe"), ("folder.pt", "is a folder")):
        with pytest.raises(InputError, match=problem):
            build("resnet18", **SMALL, weights=str(tmp_path / name))


def test_file_of_another_backbone(resnet, tmp_path):
    torch.save(resnet.state_dict(), tmp_path / "resnet.pt")
    with pytest.raises(InputError, match=r"for mobilenet_v2 lack .* and \d+ more"):
        build("mobilenet_v2", **SMALL, weights=str(tmp_path / "resnet.pt"))


@pytest.mark.parametrize("name", ["noise.pt", "noise.pth", "noise.safetensors", "empty.pt", "empty.safetensors"])
def test_unreadable_file(name, tmp_path):
    (tmp_path / name).write_bytes(b"" if name.startswith("empty") else bytes(range(256)) * 9)
    with pytest.raises(InputError, match=r"cannot be read \(.+\)") as caught:
        build("resnet18", **SMALL, weights=str(tmp_path / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("weights", "message"), [("imagnet", "imagenet"), ("weights.bin", "safetensors"), ("gone.pt", "does not exist")]
)
def test_no_such_weights(weights, message):
    with pytest.raises(InputError, match=message):
        build("resnet18", **SMALL, weights=weights)


class Trap:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_malicious_pickle_is_refused_and_not_run(tmp_path):
    sprung = tmp_path / "sprung"
    torch.save({"conv1.weight": Trap(sprung)}, tmp_path / "zip.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"conv1.weight": Trap(sprung)}, protocol=2))
    for name in ("zip.pt", "plain.pt"):
        with pytest.raises(InputError, match="cannot be read") as caught:
            build("resnet18", **SMALL, weights=str(tmp_path / name))
        assert "\n" not in str(caught.value)
        assert not sprung.exists()


def test_imagenet_weights_come_from_the_download(resnet, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(
        torch.hub, "download_url_to_file", lambda url, to, *_, **__: torch.save(resnet.state_dict(), to)
    )
    network = build("resnet18", **SMALL, weights="imagenet")
    assert torch.equal(network.stem.get_parameter("conv1.weight"), resnet.get_parameter("conv1.weight"))
    assert "tail.trunk.layer4.0.conv1.weight" in network.provided


def test_failed_download_names_the_remedy(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise urllib.error.URLError("no route")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(InputError, match=r"no route.*local \.pt"):
        build("resnet18", **SMALL, weights="imagenet")


@pytest.mark.skipif("FEDSTIL_WEIGHTS" not in os.environ, reason="FEDSTIL_WEIGHTS names no MobileNetV2 weights file")
def test_real_weights():
    network = build("mobilenet_v2", **SMALL, weights=os.environ["FEDSTIL_WEIGHTS"])
    state = network_state(network)
    assert set(state) - network.provided == {"tail.classifier.weight"}
    assert all(value.isfinite().all() for value in state.values())
    with torch.no_grad():
        one, other = network.tail.eval().features(network.stem(torch.stack([torch.zeros(3, 64, 32), images(1)[0]])))
    assert one.shape == (1280,)
    assert not torch.allclose(one, other)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet81", {}, r"backbone 'resnet81'; did you mean resnet18\? choose one of resnet18, .*swin_b"),
        ("vgg16", {}, "choose one of resnet18"),
        ("resnet18", {"split": "layer5"}, r"split of resnet18 'layer5'; did you mean layer\d\? .*conv1"),
        ("resnet18", {"neck": "bneck"}, "did you mean bnneck"),
        ("resnet18", {"last_stride": 3}, "last_stride 3: expected 1 or 2"),
        ("resnet18", {"image_size": (0, 64)}, r"image size \(0, 64\)"),
    ],
)
def test_wrong_value_is_answered_with_the_remedy(name, options, message):
    with pytest.raises(InputError, match=message):
        build(name, **{**SMALL, **options})


@pytest.fixture
def fake_torchvision(tmp_path, monkeypatch) -> Path:
    """An empty package in torchvision's place, not yet imported."""
    torchvision_cpu.import_models()
    for module in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, module)
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "models.py").write_text("fake = True")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return package


@pytest.mark.parametrize("library", ["good", "bad", "none"])
def test_operators_are_declared_only_where_their_library_does_not_load(library, fake_torchvision, monkeypatch):
    if library == "good":
        (fake_torchvision / "_C.so").symlink_to(next((Path(torch.__file__).parent / "lib").glob("libc10.*")))
    elif library == "bad":
        (fake_torchvision / "_C.so").write_bytes(b"not a library")
    declared = []
    monkeypatch.setattr(torchvision_cpu, "_declare_operators", lambda: declared.append(True))
    assert torchvision_cpu.import_models().fake
    assert declared == ([] if library == "good" else [True])


def test_missing_torchvision_is_said(tmp_path, monkeypatch, fake_torchvision):
    monkeypatch.setattr(sys, "path", [str(tmp_path / "nothing")])
    with pytest.raises(ImportError, match="torchvision is not installed"):
        torchvision_cpu.import_models()


def test_operators_that_exist_are_not_declared_again():
    torchvision_cpu.import_models()
    existing = torch.ops.torchvision.nms.default
    torchvision_cpu._declare_operators.__wrapped__()
    assert torch.ops.torchvision.nms.default is existing
