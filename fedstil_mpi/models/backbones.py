"""What a backbone is: a row of named stages that can be cut into stem and tail at any of them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fedstil_mpi.util.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Backbone:
    """A backbone without its classifier; all stages in turn take images [n, 3, h, w] to features [n, length]."""

    stages: dict[str, nn.Module]
    """In order, under the model's own names; the last one, `pool`, leaves one vector of an image."""
    default_split: str
    """The first stage of the tail unless the config names another: the last group of layers before the pooling."""
    last_strided: str | None
    """The last stage that halves the resolution by strided convolutions; None where there is none."""
    feature_length: int


@dataclass(frozen=True)
class Architecture:
    """A model, or a family of models, of which a backbone can be made."""

    create: Callable[[tuple[int, int]], nn.Module]
    """The model for images of this height and width, with random weights from torch's global generator."""
    in_stages: Callable[[Any], Backbone]
    """The stages of such a model; they are its own modules, not copies."""
    classifiers: tuple[str, ...] = ()
    """How the names of the classifier's tensors begin: a file of weights may hold them, and they are ignored."""
    imagenet: Callable[[nn.Module], dict[str, Tensor]] | None = None
    """The model's pretrained weights, downloaded unless they are cached; None where there are none."""
    adapt: Callable[[dict[str, Tensor], Any], dict[str, Tensor]] = lambda state, model: state
    """Makes the tensors of a file fit the model, for example positions in a larger image."""


def in_stages(architecture: Architecture, model: nn.Module, last_stride: int) -> Backbone:
    """The stages of a model that the architecture has made.

    last_stride: 1 or 2; 1 keeps the resolution where the last strided stage would halve it, if there is one. Raises
    InputError for another stride, and for stages that are not such a row.
    """
    if last_stride not in (1, 2):
        raise InputError(f"last_stride {last_stride}: expected 1 or 2; set model.last_stride to one of them")
    backbone = architecture.in_stages(model)
    named = (backbone.default_split, backbone.last_strided or backbone.default_split)
    if list(backbone.stages)[-1:] != ["pool"] or any(name not in backbone.stages for name in named):
        raise InputError(
            f"the backbone has the stages {', '.join(backbone.stages)}; expected a last one called pool, and default_split "
            "and last_strided among them"
        )
    if last_stride == 1 and backbone.last_strided is not None:
        for module in backbone.stages[backbone.last_strided].modules():
            if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
                module.stride = (1, 1)
    return backbone


def unknown(what: str, found: str, known: Iterable[str]) -> str:
    """One line for a name that is not among the known ones, with the closest one as a suggestion."""
    known = list(known)
    return f"unknown {what} {found!r}; {did_you_mean(found, known)}choose one of {', '.join(known)}"
