"""torchvision's backbones in stages, under torchvision's names."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedstil_mpi.models.backbones import Architecture, Backbone
from fedstil_mpi.models.compiler import compiler_left_out
from fedstil_mpi.models.torchvision_cpu import import_models


class Resize(nn.Module):
    """Images [n, c, h, w] -> [n, c, size, size], bilinear with antialiasing."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        return F.interpolate(images, size=(self.size, self.size), mode="bilinear", antialias=True)


class Tokens(nn.Module):
    """Images [n, 3, size, size] -> tokens [n, 1 + patches, width]: the class's, then each patch's, at their positions."""

    def __init__(self, model: Any):
        super().__init__()
        self.conv_proj = model.conv_proj
        self.class_token = model.class_token
        self.pos_embedding = model.encoder.pos_embedding
        self.dropout = model.encoder.dropout

    def forward(self, images: Tensor) -> Tensor:
        patches = self.conv_proj(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), patches], dim=1)
        return self.dropout(tokens + self.pos_embedding)


class FirstToken(nn.Module):
    """Tokens [n, tokens, width] -> the class's [n, width]."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0]


def _resnet(model: Any) -> Backbone:
    names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
    stages = {name: getattr(model, name) for name in names}
    stages["pool"] = nn.Sequential(model.avgpool, nn.Flatten(1))
    return Backbone(stages, "layer4", "layer4", model.fc.in_features)


def _mobilenet_v2(model: Any) -> Backbone:
    stages = {f"features.{i}": block for i, block in enumerate(model.features)}
    stages["pool"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
    return Backbone(stages, "features.17", "features.14", model.last_channel)


def _swin(model: Any) -> Backbone:
    # In the reference code the last stage and the classifier learn, the final norm does not.
    model.norm.requires_grad_(False)
    stages: dict[str, nn.Module] = {"resize": Resize(224)}
    stages |= {f"features.{i}": stage for i, stage in enumerate(model.features)}
    stages["norm"] = model.norm
    stages["pool"] = nn.Sequential(model.permute, model.avgpool, model.flatten)
    return Backbone(stages, "features.7", None, model.head.in_features)


def _vit(model: Any) -> Backbone:
    blocks = {f"encoder.layers.{name}": block for name, block in model.encoder.layers.named_children()}
    stages: dict[str, nn.Module] = {"resize": Resize(model.image_size), "tokens": Tokens(model), **blocks}
    stages |= {"encoder.ln": model.encoder.ln, "pool": FirstToken()}
    return Backbone(stages, list(blocks)[-1], None, model.hidden_dim)


class Family(NamedTuple):
    in_stages: Callable[[Any], Backbone]
    classifier: str


FAMILIES: dict[str, Family] = {
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"), Family(_resnet, "fc.")),
    "mobilenet_v2": Family(_mobilenet_v2, "classifier."),
    **dict.fromkeys(("swin_t", "swin_s", "swin_b"), Family(_swin, "head.")),
    **dict.fromkeys(("vit_b_16", "vit_b_32", "vit_l_16"), Family(_vit, "heads.")),
}


def without_compiler(backbone: str) -> AbstractContextManager[None]:
    """A context that leaves torch's compiler out where it is one of these backbones; others may compile something."""
    return compiler_left_out() if backbone in FAMILIES else nullcontext()


def architecture(name: str) -> Architecture:
    """name: one of FAMILIES. Images of any size are taken: Swin and ViT resize them to what they were made for."""
    family = FAMILIES[name]
    return Architecture(
        lambda image_size: import_models().get_model(name, weights=None),
        family.in_stages,
        (family.classifier,),
        partial(_imagenet, name),
    )


def _imagenet(name: str, model: nn.Module) -> dict[str, Tensor]:
    return import_models().get_model_weights(name).DEFAULT.get_state_dict(progress=False, check_hash=True)
