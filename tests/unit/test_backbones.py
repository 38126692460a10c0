"""Backbones from elsewhere: timm's, and the user's own."""

import sys

import pytest
import torch
from torch import Tensor, nn

from fedstil_mpi.models.network import adaptive_parameters, build, representation_shape
from fedstil_mpi.models.torchvision_cpu import import_models
from fedstil_mpi.util.errors import InputError

SIZE = (64, 32)
TINY = "timm:vit_tiny_patch16_224"

OWN = """
from torch import nn
from fedstil_mpi.models.backbones import Backbone

CLASSIFIERS = ("head.",)

def create(image_size):
    model = nn.Module()
    model.first, model.second, model.head = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 6, 3, 2), nn.Linear(6, 5)
    return model

def in_stages(model):
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
    return Backbone({"first": model.first, "second": model.second, "pool": pool}, "second", "second", 6)
"""


def images(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(7))


def own(tmp_path, code: str = OWN, **options):
    (tmp_path / "own.py").write_text(code)
    return build(str(tmp_path / "own.py"), num_classes=5, image_size=SIZE, **options)


def find_timm():
    import_models()  # timm imports torchvision
    return pytest.importorskip("timm")


def test_a_file_is_a_backbone(tmp_path):
    network = own(tmp_path, last_stride=1)
    assert network.tail.trunk.second.stride == (1, 1)
    assert list(adaptive_parameters(network.tail)) == ["trunk.second.weight", "classifier.weight"]
    assert network.tail.eval()(network.stem(images(*SIZE)))[0].shape == (2, 5)


def test_its_weights_come_from_a_file_and_its_classifier_is_left_out(tmp_path):
    model = nn.Module()
    model.first, model.second, model.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3), nn.Linear(6, 99)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    network = own(tmp_path, weights=str(tmp_path / "weights.pt"))
    assert torch.equal(network.stem.first.weight, model.first.weight)
    with pytest.raises(InputError, match=r"own\.py has no imagenet weights; set model\.weights to none"):
        own(tmp_path, weights="imagenet")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"pool": pool', '"end": pool', "stages first, second, end; expected a last one called pool"),
        ('"second", "second", 6', '"third", None, 6', "expected a last one called pool, and default_split"),
        ("def create", "def make", "lacks create; expected a module with create, in_stages"),
    ],
)
def test_what_is_no_backbone_is_refused(tmp_path, old, new, message):
    with pytest.raises(InputError, match=message):
        own(tmp_path, OWN.replace(old, new))


# -- timm --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "tokens"), [(TINY, 9), ("timm:vit_small_patch16_224.dino", 9)])
def test_stem_and_tail_equal_timms_model(name, tokens):
    timm = find_timm()
    network = build(name, num_classes=5, image_size=SIZE, seed=3)
    assert representation_shape(network, SIZE) == (tokens, 192 if name == TINY else 384)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        whole = timm.create_model(name.removeprefix("timm:"), num_classes=0, img_size=SIZE).eval()
    with torch.no_grad():
        assert torch.equal(network.tail.eval().features(network.stem(images(*SIZE))), whole(images(*SIZE)))


def test_timms_tail_is_a_block():
    find_timm()
    names = list(adaptive_parameters(build(TINY, num_classes=5, image_size=SIZE).tail))
    block = [f"trunk.blocks_11.{name}.weight" for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")]
    assert names == [*block, "classifier.weight"]
    longer = build(TINY, num_classes=5, image_size=SIZE, split="blocks.10").tail
    assert len(adaptive_parameters(longer)) == 9


def test_the_positions_of_a_file_are_fitted_to_the_images(tmp_path):
    timm = find_timm()
    whole = timm.create_model("vit_tiny_patch16_224")
    torch.save(whole.state_dict(), tmp_path / "weights.pt")
    network = build(TINY, num_classes=5, image_size=SIZE, weights=str(tmp_path / "weights.pt"))
    assert network.stem.tokens.model.pos_embed.shape == (1, 9, 192)
    assert torch.equal(network.stem.tokens.model.cls_token, whole.cls_token)
    assert torch.equal(network.tail.trunk.blocks_11.attn.qkv.weight, whole.blocks[11].attn.qkv.weight)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        (
            "timm:vit_tinny_patch16_224",
            SIZE,
            r"no Vision Transformer 'vit_tinny_patch16_224'; did you mean vit_tiny_patch16",
        ),
        ("timm:resnet18", SIZE, "timm has no Vision Transformer 'resnet18'; .*set model.backbone to a name such as"),
        (TINY, (15, 32), "images of 15 x 32 are smaller than a patch of .*data.width to 16 or more"),
        ("timm:vit_so400m_patch14_siglip_224", (28, 14), "a backbone that pools by 'map' is not supported"),
    ],
)
def test_what_timm_cannot_do_is_said(name, size, message):
    find_timm()
    with torch.device("meta"), pytest.raises(InputError, match=message):
        build(name, num_classes=5, image_size=size)


def test_a_failed_download_names_the_remedy(monkeypatch):
    timm = find_timm()
    create = timm.create_model

    def offline(name, pretrained, **options):
        if pretrained:
            raise OSError("no route")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(InputError, match=r"no route.*local \.pt"):
        build(TINY, num_classes=5, image_size=SIZE, weights="imagenet")


def test_without_timm_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"timm cannot be imported .*; pip install 'fedstil-mpi\[timm\]'"):
        build(TINY, num_classes=5, image_size=SIZE)
