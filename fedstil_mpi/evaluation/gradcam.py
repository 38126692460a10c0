"""What makes two images alike for a model: Grad-CAM (Selvaraju et al., ICCV 2017) of the cosine of their features.

Evidence at a place of a map = sum over channels of activation x gradient of the cosine, with the lengths of the two
features held fixed. (With the lengths free, the gradient is at right angles to the feature, and the evidence in an image
would always add up to 0.) At the last map before the pooling each image's evidence adds up to the cosine, so that it
tells how much of it each place is responsible for (as in Stylianou, Souvenir and Pless, WACV 2019). At earlier maps, where
the gradient is not the same at every place, it is taken place by place (as in Draelos and Carin's HiResCAM, 2020).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fedstil_mpi.models.backbones import unknown
from fedstil_mpi.models.network import Network
from fedstil_mpi.util.errors import InputError


class Likeness(NamedTuple):
    """Why two images are alike, or not."""

    cosine: float
    """The cosine of their features."""
    evidence: Tensor
    """float32 [2, h, w]: the evidence in each image at each place of the map."""


PLACES = 32
"""A map of fewer places, 8 x 4, shows little more than top and bottom."""


def layers(network: Network) -> list[str]:
    """The stages whose maps can be looked at, in order: all but the first and the pooling."""
    return list(_stages(network))[1:-1]


@torch.no_grad()
def default_layer(network: Network, image_size: tuple[int, int]) -> str:
    """The last stage whose map has at least PLACES places for images of this height and width; the first if none has."""
    stages = _stages(network)
    network.tail.eval()
    value, chosen = torch.zeros(1, 3, *image_size), layers(network)[0]
    for name, stage in stages.items():
        value = stage(value)
        if name in layers(network) and value.dim() == 4 and value.select(_channels(stages), 0).numel() >= PLACES:
            chosen = name
    return chosen


def likeness(network: Network, images: Tensor, layer: str) -> Likeness:
    """Why two images are alike, or not.

    images: float [2, 3, height, width], normalised; layer: one of `layers`. On the CPU. Puts the tail into evaluation
    mode. Raises InputError for an unknown layer, and where the features are not finite.
    """
    stages = _stages(network)
    if layer not in layers(network):
        raise InputError(unknown("layer", layer, layers(network)))
    cut = list(stages).index(layer) + 1
    modules = list(stages.values())
    network.tail.eval()
    with torch.no_grad():
        activation = nn.Sequential(*modules[:cut])(images)
    if activation.dim() != 4:
        raise InputError(
            f"layer {layer} has no map but tokens; expected a backbone with maps, such as a ResNet or Swin"
        )
    activation = activation.detach().requires_grad_()  # detached from `images`, which a stage may hand on as they are
    features = nn.Sequential(*modules[cut:])(activation)
    lengths = features.detach().norm(dim=1, keepdim=True).clamp(min=1e-12)
    if not lengths.isfinite().all():
        raise InputError("the features are not finite: the model has diverged; expected one that can be searched with")
    first, second = features / lengths
    cosine = first @ second
    (gradient,) = torch.autograd.grad(cosine, activation)
    return Likeness(cosine.item(), (gradient * activation).detach().sum(_channels(stages)))


def heat(evidence: Tensor, size: tuple[int, int]) -> Tensor:
    """The evidence for likeness [n, h, w] as heat maps [n, height, width], 0 to 1, the hottest place of each image 1.

    Evidence against it is cut off; where there is none for it, the map is 0 everywhere.
    """
    resized = interpolate(evidence.clamp(min=0)[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    hottest = resized.amax((1, 2), keepdim=True)
    return resized / hottest.where(hottest > 0, 1.0)


def _stages(network: Network) -> dict[str, nn.Module]:
    """All of the backbone, from images to features."""
    return dict(network.stem.named_children()) | dict(network.tail.trunk.named_children())


def _channels(stages: dict[str, nn.Module]) -> int:
    """The axis of the channels: the last for Swin, whose maps only the pooling turns round, else the second."""
    return -1 if any(type(module).__name__ == "Permute" for module in stages["pool"].modules()) else 1
