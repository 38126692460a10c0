"""The network of a client: a frozen stem, a tail that learns, and which of their tensors are trained and sent."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from fedstil_mpi.models import backbones, registry
from fedstil_mpi.models import weights as pretrained
from fedstil_mpi.models.inference import inference_form
from fedstil_mpi.models.precision import autocast, keep_from_slow_kernels
from fedstil_mpi.models.reach import cut_to_reach
from fedstil_mpi.models.twins import twin
from fedstil_mpi.util.errors import InputError


class Stem(nn.Sequential):
    """The frozen part of the backbone: nothing requires gradients, and batch norms never update their statistics.

    Images, float [n, 3, h, w], normalised -> representations [n, ...].
    """

    def __init__(self, stages: dict[str, nn.Module], precision: str = "float32"):
        """precision: "float32" or "bfloat16", in which it computes; the weights are float32."""
        super().__init__()
        for name, stage in stages.items():
            self.add_module(_module_name(name), stage)
        self.precision = precision
        self._form: tuple[list[tuple[int, int]], nn.Module] | None = None
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Computed in its inference form, made again when a tensor has changed: a start model may still arrive."""
        if images.is_meta:
            return super().forward(images)
        made_of = [(tensor.data_ptr(), tensor._version) for tensor in chain(self.parameters(), self.buffers())]
        if self._form is None or self._form[0] != made_of:
            self._form = made_of, inference_form(nn.Sequential(OrderedDict(self.named_children())))
        with autocast(images.device, self.precision):
            outputs = self._form[1](images.contiguous(memory_format=torch.channels_last))
        return outputs.float().contiguous()

    def train(self, mode: bool = True) -> "Stem":
        """Stays in evaluation mode, whatever the mode."""
        return super().train(False)


class Tail(nn.Module):
    """The part that learns: the rest of the backbone (`trunk`), a batch-norm `neck` and a `classifier`."""

    def __init__(
        self,
        stages: dict[str, nn.Module],
        feature_length: int,
        num_classes: int,
        neck: str,
        precision: str = "float32",
    ):
        """precision: as of `Stem`."""
        super().__init__()
        self.precision = precision
        self.trunk = nn.Sequential()
        for name, stage in stages.items():
            self.trunk.add_module(_module_name(name), stage)
        if precision == "bfloat16":
            keep_from_slow_kernels(self.trunk)
        self.neck: nn.Module
        if neck == "bnneck":
            # Fixed at weight 1, bias 0: the neck only standardises, as in the reference code.
            self.neck = nn.BatchNorm1d(feature_length).requires_grad_(False)
            self.classifier = nn.Linear(feature_length, num_classes, bias=False)
            nn.init.normal_(self.classifier.weight, std=0.001)
        else:
            self.neck = nn.Identity()
            self.classifier = nn.Linear(feature_length, num_classes)

    def features(self, representations: Tensor) -> Tensor:
        """Representations [n, ...] -> features [n, F], before the neck: what retrieval compares."""
        with autocast(representations.device, self.precision):
            return self.trunk(representations).float()

    def forward(self, representations: Tensor) -> tuple[Tensor, Tensor]:
        """Representations [n, ...] -> scores [n, C] of the classifier behind the neck, features [n, F] before it."""
        features = self.features(representations)
        with autocast(representations.device, self.precision):
            return self.classifier(self.neck(features)).float(), features

    def twin(self) -> "Tail":
        """The same layers around the same memory."""
        return twin(self)

    def leave_twins(self) -> None:
        """Move to memory of its own."""
        for tensor in chain(self.parameters(), self.buffers()):
            tensor.data = tensor.data.clone()


@dataclass
class Network:
    """A stem that clients can share and a tail that each has for itself."""

    stem: nn.Module
    tail: Tail
    provided: frozenset[str]
    """Names, as in `network_state`, of tensors every client has before first contact: those of a shared checkpoint and
    the neck's constants. Empty without pretrained weights."""


def build(
    name: str,
    *,
    num_classes: int,
    image_size: tuple[int, int],
    split: str | None = None,
    last_stride: int = 1,
    neck: str = "bnneck",
    weights: str = "none",
    seed: int = 0,
    precision: str = "float32",
) -> Network:
    """A network on the backbone `name`, on the CPU, in training mode but for the stem.

    split: first stage of the tail, by default the backbone's last stage; image_size: height and width in pixels;
    last_stride: 1 or 2, ignored by transformers; neck: "bnneck" or "plain"; weights: "none", "imagenet" or a file;
    precision: "float32" or "bfloat16", of what stem and tail compute.
    Kernels are cut to what images of this size let them reach (models/reach.py). Equal arguments give bit-equal
    networks; torch's global generators are left as they were.
    Raises InputError for unknown names, for weights that do not fit and for impossible values.
    """
    if min(image_size) < 1:
        raise InputError(f"image size {image_size}: expected a positive height and width in pixels; set both")
    if neck not in ("bnneck", "plain"):
        raise InputError(backbones.unknown("neck", neck, ("bnneck", "plain")))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        architecture = registry.find(name)
        model = architecture.create(image_size)
        pretrained.load(model, name, architecture, weights)
        backbone = backbones.in_stages(architecture, model, last_stride)
        cut_to_reach(backbone.stages.values(), image_size)
        front, rest = _cut(name, backbone, backbone.default_split if split is None else split)
        tail = Tail(rest, backbone.feature_length, num_classes, neck, precision)
    network = Network(Stem(front, precision), tail, frozenset())
    if weights != "none":
        network.provided = given(network)
    return network


def given(network: Network) -> frozenset[str]:
    """What a shared checkpoint gives every client, and the neck's constants: all but the classifier, as in `network_state`."""
    return frozenset(key for key in network_state(network) if not key.startswith("tail.classifier."))


def adaptive_parameters(tail: Tail) -> dict[str, nn.Parameter]:
    """The weights (no biases, no norms) of the tail's convolutions and linear layers: what FedSTIL mixes and sends.

    An attention's projections of queries, keys and values, which torch keeps as plain parameters, are such weights too.
    Under their names in the tail, in the order of its layers, the classifier's last.
    """
    names = [f"{name}.{weight}" for name, layer in tail.named_modules() for weight in _weights(layer)]
    return {name: tail.get_parameter(name) for name in names}


def owner(tail: Tail, name: str) -> tuple[nn.Module, str]:
    """The module that holds a parameter of this name, and what it is called there."""
    module, _, attribute = name.rpartition(".")
    return tail.get_submodule(module), attribute


def _weights(layer: nn.Module) -> tuple[str, ...]:
    """What the weights are called that a layer holds itself."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        return ("weight",)
    if isinstance(layer, nn.MultiheadAttention):
        projections = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
        return tuple(name for name in projections if getattr(layer, name) is not None)
    return ()


def trainable_parameters(tail: Tail) -> dict[str, nn.Parameter]:
    """All parameters of the tail that learn, norms and biases included, under their names in the tail."""
    return {name: parameter for name, parameter in tail.named_parameters() if parameter.requires_grad}


def part_name(weight: str, part: str) -> str:
    """Under which name a part of a parametrized weight is trained: "original", or for example "0.mask"."""
    layer, _, attribute = weight.rpartition(".")
    return f"{layer}.parametrizations.{attribute}.{part}"


def fingerprint(tail: Tail) -> str:
    """SHA-256 of the parameters and buffers: equal exactly where two models are equal to the last bit."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tail.state_dict().items()):  # weights that were parametrized come last
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def is_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no value is nan or infinite; the tensors, at least one, are on one device."""
    tensors = list(tensors)
    if torch.stack([tensor.sum() for tensor in tensors]).isfinite().all():  # one value that is not would show
        return True
    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())  # else a sum may be too large


def network_state(network: Network) -> dict[str, Tensor]:
    """Every parameter and buffer, under "stem." and "tail." names, detached; they share the network's memory."""
    parts = {"stem": network.stem, "tail": network.tail}
    return {f"{part}.{key}": value for part, module in parts.items() for key, value in module.state_dict().items()}


def representation_shape(network: Network, image_size: tuple[int, int]) -> tuple[int, ...]:
    """Shape of one image's representation, found by passing one blank image of this height and width."""
    reference = next(network.stem.parameters(), torch.empty(0))
    with torch.no_grad():
        return tuple(network.stem(torch.zeros(1, 3, *image_size, device=reference.device)).shape[1:])


def _cut(name: str, backbone: backbones.Backbone, split: str) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
    """The stages before `split`, and from it on."""
    names = list(backbone.stages)
    if split not in names:
        raise InputError(backbones.unknown(f"split of {name}", split, names))
    at = names.index(split)
    parts = ({key: backbone.stages[key] for key in part} for part in (names[:at], names[at:]))
    return next(parts), next(parts)


def _module_name(stage: str) -> str:
    return stage.replace(".", "_")  # torch does not allow dots
