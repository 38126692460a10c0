"""torchvision's backbones as a row of named stages that can be cut into stem and tail at any of them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fedstil_mpi.models.torchvision_cpu import import_models
from fedstil_mpi.util.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Backbone:
    """A backbone without its classifier; all stages in turn take images [n, 3, h, w] to features [n, length]."""

    stages: dict[str, nn.Module]
    """In order, under torchvision's names; the last one, `pool`, averages over positions."""
    default_split: str
    """The first stage of the tail unless the config names another: the last group of layers before the pooling."""
    last_strided: str | None
    """The last stage that halves the resolution by strided convolutions; None for Swin, which merges patches."""
    feature_length: int


class Resize(nn.Module):
    """Images [n, c, h, w] -> [n, c, size, size], bilinear with antialiasing."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        return F.interpolate(images, size=(self.size, self.size), mode="bilinear", antialias=True)


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
    # In the published set-up the last stage and the classifier learn, the final norm does not.
    model.norm.requires_grad_(False)
    stages: dict[str, nn.Module] = {"resize": Resize(224)}
    stages |= {f"features.{i}": stage for i, stage in enumerate(model.features)}
    stages["norm"] = model.norm
    stages["pool"] = nn.Sequential(model.permute, model.avgpool, model.flatten)
    return Backbone(stages, "features.7", None, model.head.in_features)


_FAMILIES: dict[str, Callable[[Any], Backbone]] = {
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"), _resnet),
    "mobilenet_v2": _mobilenet_v2,
    **dict.fromkeys(("swin_t", "swin_s", "swin_b"), _swin),
}


def create(name: str) -> nn.Module:
    """torchvision's model of this name, classifier included, with random weights from torch's global generator.

    Raises InputError where the name is unknown.
    """
    if name not in _FAMILIES:
        raise InputError(unknown("backbone", name, _FAMILIES))
    return import_models().get_model(name, weights=None)


def in_stages(name: str, model: nn.Module, last_stride: int) -> Backbone:
    """The stages of a model made by `create(name)`; they are the model's own modules, not copies.

    last_stride: 1 or 2; 1 keeps the resolution where the last strided stage would halve it. Swin ignores it.
    Raises InputError for another stride.
    """
    if last_stride not in (1, 2):
        raise InputError(f"last_stride {last_stride}: expected 1 or 2; set model.last_stride to one of them")
    backbone = _FAMILIES[name](model)
    if last_stride == 1 and backbone.last_strided is not None:
        for module in backbone.stages[backbone.last_strided].modules():
            if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
                module.stride = (1, 1)
    return backbone


def unknown(what: str, found: str, known: Iterable[str]) -> str:
    """One line for a name that is not among the known ones, with the closest one as a suggestion."""
    known = list(known)
    return f"unknown {what} {found!r}; {did_you_mean(found, known)}choose one of {', '.join(known)}"
